package sym_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/internal/coretest"
	"crashlab/crashkit/sym"
)

const imageAt addr.Virt = 0xffffffff81000000

// rodata lays the tables out as a kernel's read-only data has them, somewhere
// behind the image's start, in the order until v6.3 or since.
func rodata(syms []sym.Symbol, e coretest.Encoding, old bool, align int) []byte {
	return layOut(syms, e, old, false, align)
}

// layOut is rodata, with the order of names before the token table if seqs.
func layOut(syms []sym.Symbol, e coretest.Encoding, old, seqs bool, align int) []byte {
	image := make([]byte, 3<<20+0x1238)
	pad := func(n int) {
		for len(image)%n != 0 {
			image = append(image, 0)
		}
	}
	size := 4 * len(syms)
	// Where the offsets stand depends on the others only if they come last.
	build := func(offsetsAt addr.Virt) (at int) {
		k := coretest.EncodeKallsyms(slices.Clone(syms), e, relBase, offsetsAt)
		base := binary.LittleEndian.AppendUint64(nil, relBase)
		if old {
			at = len(image)
			image = append(image, k.Offsets...)
			pad(8)
			if e != coretest.Absolute {
				image = append(image, base...)
			}
		}
		pad(align)
		image = binary.LittleEndian.AppendUint32(image, k.NumSyms)
		for _, part := range [][]byte{k.Names, k.Markers, k.TokenTable, k.TokenIndex} {
			pad(align)
			if image = append(image, part...); seqs && &part[0] == &k.Markers[0] {
				pad(align)
				for i := range syms { // by no order that counts: what is in there is not read
					image = append(image, byte(i>>16), byte(i*7>>8), byte(i*7))
				}
			}
		}
		if !old {
			pad(align)
			at = len(image)
			image = append(image, k.Offsets...)
			pad(8)
			if e == coretest.AbsolutePerCPU || e == coretest.BaseRelative {
				image = append(image, base...)
			}
		}
		return at
	}
	start := len(image)
	at := build(imageAt + addr.Virt(start+size))
	image = image[:start]
	build(imageAt + addr.Virt(at))
	return append(image, make([]byte, 1<<20)...)
}

// manySyms are more than fill a block of names between two markers.
func manySyms(n int) []sym.Symbol {
	syms := []sym.Symbol{{Name: "_stext", Addr: relBase, Type: 'T'}}
	for i := range n {
		syms = append(syms, sym.Symbol{Name: fmt.Sprintf("sys_function_%d", i), Addr: relBase + 16 + addr.Virt(16*i), Type: 't'})
	}
	return syms
}

func TestFindKallsyms(t *testing.T) {
	for _, c := range []struct {
		name  string
		e     coretest.Encoding
		n     int
		old   bool
		align int
	}{
		{"absolute, until 6.3", coretest.Absolute, 1000, true, 8},
		{"absolute, since 6.4", coretest.Absolute, 1000, false, 8},
		{"per-cpu, 5.10", coretest.AbsolutePerCPU, 1000, true, 8},
		{"base relative, 5.10", coretest.BaseRelative, 999, true, 8},
		{"base relative, 6.1.y", coretest.BaseRelative, 1001, true, 8},
		{"even, 6.1.y", coretest.BaseRelative, 1300, true, 8},
		{"many, 6.1.y", coretest.BaseRelative, 40000, true, 8},
		{"one block, 6.1.y", coretest.BaseRelative, 100, true, 8},
		{"base relative, 6.12", coretest.BaseRelative, 1001, false, 8},
		{"place relative, 7.2", coretest.PlaceRelative, 1000, false, 4},
		// More names than the markers and the last block take.
		{"many, 5.10", coretest.BaseRelative, 40000, true, 8},
		{"many, 7.2", coretest.PlaceRelative, 40000, false, 4},
		{"one block", coretest.BaseRelative, 100, true, 8},
		{"just one block", coretest.BaseRelative, 255, true, 8},
		{"just two blocks", coretest.BaseRelative, 511, false, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			syms := manySyms(c.n)
			image := layOut(syms, c.e, c.old, strings.HasSuffix(c.name, "6.1.y"), c.align)
			got, _, err := sym.FindKallsyms(memory{imageAt: image}, imageAt, uint64(len(image)), "_stext", relBase)
			if err != nil {
				t.Fatalf("FindKallsyms: %v", err)
			}
			if d := cmp.Diff(syms, got); d != "" {
				t.Errorf("FindKallsyms: -want +got:\n%s", d)
			}
		})
	}
}

// What is there once more, and damaged, must not hide the tables that are whole.
func TestFindKallsymsDecoy(t *testing.T) {
	syms := manySyms(600)
	decoy := rodata(syms, coretest.BaseRelative, true, 8)
	clear(decoy[3<<20 : 3<<20+0x1400]) // the offsets
	whole := rodata(syms, coretest.BaseRelative, true, 8)
	image := slices.Concat(decoy, whole)
	got, _, err := sym.FindKallsyms(memory{imageAt: image}, imageAt, uint64(len(image)), "_stext", relBase)
	if err != nil {
		t.Fatalf("FindKallsyms: %v", err)
	}
	if len(got) != len(syms) {
		t.Errorf("FindKallsyms = %d symbols; want %d", len(got), len(syms))
	}
}

func TestFindKallsymsNothing(t *testing.T) {
	image := make([]byte, 2<<20)
	for _, m := range []memory{{}, {imageAt: image}} {
		if _, _, err := sym.FindKallsyms(m, imageAt, uint64(len(image)), "_stext", relBase); !errors.Is(err, sym.ErrNoKallsyms) {
			t.Errorf("FindKallsyms = %v; want %v", err, sym.ErrNoKallsyms)
		}
	}
}

func FuzzFindKallsyms(f *testing.F) {
	const skip = 3 << 20 // what goes before is zero
	for _, old := range []bool{true, false} {
		f.Add(rodata(manySyms(300), coretest.BaseRelative, old, 8)[skip : skip+0x6000])
	}
	f.Add(rodata(manySyms(3), coretest.PlaceRelative, false, 4)[skip : skip+0x2000])
	f.Fuzz(func(t *testing.T, image []byte) {
		got, _, err := sym.FindKallsyms(memory{imageAt: image}, imageAt, uint64(len(image)), "_stext", relBase)
		if err == nil {
			sym.NewTable(got).Find(relBase + 8)
		}
	})
}
