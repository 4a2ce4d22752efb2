package dump_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
)

// Offsets in a program header.
const (
	pOffset = 8
	pVaddr  = 16
	pPaddr  = 24
	pFilesz = 32
	pMemsz  = 40
)

// setPhdr changes a field of the n-th program header; the first is PT_NOTE.
func setPhdr(b []byte, n, field int, value uint64) {
	binary.LittleEndian.PutUint64(b[64+56*n+field:], value)
}

func TestELFSegments(t *testing.T) {
	m := dumptest.Memory{
		Pages: map[addr.PFN][]byte{1: nil, 2: nil, 5: nil},
		Virt:  func(p addr.Phys) addr.Virt { return 0xffffffff80000000 + addr.Virt(p) },
	}
	want := []dump.Segment{
		{Phys: 0x1000, Virt: 0xffffffff80001000, Offset: 4096, FileSize: 8192, MemSize: 8192},
		{Phys: 0x5000, Virt: 0xffffffff80005000, Offset: 12288, FileSize: 4096, MemSize: 4096},
	}
	if diff := cmp.Diff(want, open(t, m.ELF()).Segments()); diff != "" {
		t.Errorf("Segments (-want +got):\n%s", diff)
	}
	if got := open(t, m.Kdump(dumptest.KdumpOptions{})).Segments(); got != nil {
		t.Errorf("Segments of a kdump-compressed file = %v; want none", got)
	}
}

// TestELFHeader has headers as real writers leave them.
func TestELFHeader(t *testing.T) {
	t.Run("e_ehsize is nonsense", func(t *testing.T) { // QEMU 7.2
		b := testMemory().ELF()
		b[52] = 8
		checkMemory(t, open(t, b))
	})
	t.Run("PN_XNUM", func(t *testing.T) {
		b := testMemory().ELF()
		le := binary.LittleEndian
		sh := make([]byte, 64)
		le.PutUint32(sh[44:], uint32(le.Uint16(b[56:])))
		le.PutUint16(b[56:], 0xffff)
		le.PutUint64(b[40:], uint64(len(b)))
		img := open(t, append(b, sh...))
		checkMemory(t, img)
		checkNotes(t, img)
	})
	t.Run("page size", func(t *testing.T) {
		m := dumptest.Memory{
			PageSize:   65536,
			Pages:      map[addr.PFN][]byte{3: noise(65536, 1)},
			VMCoreInfo: "PAGESIZE=65536\n",
		}
		for _, b := range [][]byte{m.ELF(), m.Kdump(dumptest.KdumpOptions{Compression: dump.Zlib})} {
			img := open(t, b)
			page, err := img.Page(3)
			if img.PageSize() != 65536 || err != nil || !bytes.Equal(page, noise(65536, 1)) {
				t.Errorf("%s: page size %d, error %v", img.Info().Format, img.PageSize(), err)
			}
		}
	})
	t.Run("not x86-64", func(t *testing.T) {
		b := testMemory().ELF()
		b[18] = 183
		img := open(t, b)
		st := img.PRStatus()
		if img.Info().Machine != "aarch64" || st[0].PID != 42 || st[0].Regs != [27]uint64{} || len(st[0].Raw) != 336 {
			t.Errorf("machine %q, status %+v", img.Info().Machine, st[0])
		}
	})
}

// TestELFLayout moves the segments of a core of three pages, each filled with
// its page frame number: 1 and 2 in one segment, then 5.
func TestELFLayout(t *testing.T) {
	build := func() []byte {
		return dumptest.Memory{Pages: map[addr.PFN][]byte{
			1: bytes.Repeat([]byte{1}, 4096), 2: bytes.Repeat([]byte{2}, 4096), 5: bytes.Repeat([]byte{5}, 4096),
		}}.ELF()
	}
	for _, test := range []struct {
		name  string
		edit  func(b []byte) []byte
		addr  addr.Phys
		want  []byte
		fault addr.Reason
		state dump.State
		// page is what Page says, where that is not want or fault.
		page addr.Reason
	}{
		{
			name: "overlapping segments: the first wins",
			edit: func(b []byte) []byte { setPhdr(b, 2, pPaddr, 0x2000); return b },
			addr: 0x1ffe, want: []byte{1, 1, 2, 2}, state: dump.Present,
		},
		{
			name: "overlapping segments: one cut off gives way",
			edit: func(b []byte) []byte {
				setPhdr(b, 2, pPaddr, 0x2000)
				setPhdr(b, 1, pOffset, 1<<40)
				return b
			},
			addr: 0x2000, want: []byte{5}, state: dump.Present,
		},
		{
			name: "overlapping in the middle",
			edit: func(b []byte) []byte {
				setPhdr(b, 2, pPaddr, 0x800)
				return b
			},
			addr: 0xffe, want: []byte{5, 5, 1, 1}, state: dump.Present, page: addr.NotInDump,
		},
		{
			name: "p_filesz below p_memsz: excluded, not zero",
			edit: func(b []byte) []byte { setPhdr(b, 1, pFilesz, 0x1000); return b },
			addr: 0x2000, fault: addr.Excluded, state: dump.Excluded,
		},
		{
			name: "p_filesz ends within a page: its head can be read",
			edit: func(b []byte) []byte { setPhdr(b, 1, pFilesz, 0x1800); return b },
			addr: 0x27fe, want: []byte{2, 2}, state: dump.Excluded, page: addr.Excluded,
		},
		{
			name: "p_memsz below p_filesz",
			edit: func(b []byte) []byte { setPhdr(b, 1, pMemsz, 0); return b },
			addr: 0x2000, want: []byte{2}, state: dump.Present,
		},
		{
			name: "the file is cut off",
			edit: func(b []byte) []byte { return b[:len(b)-4096-100] },
			addr: 0x2fff, fault: addr.Truncated, state: dump.Truncated,
		},
		{
			name: "no physical address",
			edit: func(b []byte) []byte { setPhdr(b, 1, pPaddr, ^uint64(0)); return b },
			addr: 0x2000, fault: addr.NotInDump, state: dump.Absent,
		},
		{
			name: "p_paddr+p_memsz wraps",
			edit: func(b []byte) []byte { setPhdr(b, 1, pMemsz, ^uint64(0)); return b },
			addr: 0x2000, fault: addr.NotInDump, state: dump.Absent,
		},
		{
			name: "p_offset wraps",
			edit: func(b []byte) []byte { setPhdr(b, 1, pOffset, ^uint64(0)); return b },
			addr: 0x2000, fault: addr.NotInDump, state: dump.Absent,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			img := open(t, test.edit(build()))
			b := make([]byte, max(len(test.want), 1))
			err := img.ReadPhys(test.addr, b)
			if addr.ReasonOf(err) != test.fault || err == nil && !bytes.Equal(b, test.want) {
				t.Errorf("ReadPhys(%v) = %x, %v; want %x, %v", test.addr, b, err, test.want, test.fault)
			}
			pfn := addr.PFN(test.addr >> 12)
			if st := img.PageState(pfn); st != test.state {
				t.Errorf("PageState(%#x) = %v; want %v", pfn, st, test.state)
			}
			want := test.fault
			if test.page != 0 {
				want = test.page
			}
			if _, err := img.Page(pfn); addr.ReasonOf(err) != want {
				t.Errorf("Page(%#x): %v; want %v", pfn, err, want)
			}
			if b, err := img.Page(5); test.addr != 0x2000 && len(test.edit(build())) == len(build()) && err == nil && b[0] != 5 {
				t.Errorf("Page(5) = %x...", b[:4])
			}
		})
	}
}

// TestELFSameNotes has a thousand PT_NOTEs that are one and the same megabyte.
func TestELFSameNotes(t *testing.T) {
	const n = 1000
	b := dumptest.Memory{}.ELF()[:64]
	le := binary.LittleEndian
	le.PutUint16(b[56:], n)
	b = append(b, make([]byte, 56*n)...)
	off := len(b)
	for range 1 << 16 {
		b = dump.AppendNote(b, dump.Note{Name: "a", Type: 1})
	}
	for i := range n {
		le.PutUint32(b[64+56*i:], 4)
		setPhdr(b, i, pOffset, uint64(off))
		setPhdr(b, i, pFilesz, uint64(len(b)-off))
	}
	before := allocated()
	img := open(t, b)
	if got := len(img.Notes()); got != 1<<16 {
		t.Errorf("%d notes; want %d", got, 1<<16)
	}
	if a := allocated() - before; a > 32<<20 {
		t.Errorf("%d bytes allocated for a file of %d", a, len(b))
	}
}
