package crashkit_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/dump/dumptest"
	"crashlab/crashkit/internal/fixture"
)

// without writes a copy of a real dump that lacks notes and pages.
func without(t *testing.T, name string, note func(dump.Note) bool, pages ...addr.PFN) *dump.Image {
	t.Helper()
	img, err := dump.Open(fixture.Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	cfg := dump.ConfigOf(img)
	cfg.Notes = slices.DeleteFunc(slices.Clone(cfg.Notes), note)
	keep := cfg.Keep
	cfg.Keep = func(pfn addr.PFN) bool { return keep(pfn) && !slices.Contains(pages, pfn) }
	path := filepath.Join(t.TempDir(), "vmcore")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dump.Write(t.Context(), f, cfg, img); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := dump.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	if _, err := out.VMCoreInfo(); !errors.Is(err, dump.ErrNoVMCoreInfo) {
		t.Fatalf("the copy's VMCoreInfo: %v; want none", err)
	}
	return out
}

func vmcoreinfo(n dump.Note) bool { return n.Name == "VMCOREINFO" }

// Where the guests of the fixtures have their VMCOREINFO: in a page of its own,
// and in the note that is made of it. See crashkit/testdata/README.md.
const (
	qemuInfoPage    = 0x184c
	qemuNotePage    = 0x11d6
	captureNotePage = 0x11e4
	captureOther    = 0x9b30
)

func TestRecoverFromMemory(t *testing.T) {
	whole, err := crashkit.Open(fixture.Path(t, fixture.QEMU))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if len(whole.Limits) > 0 {
		t.Fatal(whole.Limits)
	}
	for _, test := range []struct {
		name  string
		pages []addr.PFN
		found string
	}{
		{"both", nil, "found in memory at 0x11d6018"},
		{"the page", []addr.PFN{qemuNotePage}, "found in memory at 0x184c000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := crashkit.New(without(t, fixture.QEMU, vmcoreinfo, test.pages...))
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Limits) != 1 || !strings.HasSuffix(p.Limits[0].Error(), test.found) {
				t.Errorf("Limits = %v; want %q alone", p.Limits, test.found)
			}
			// QEMU had it from the guest by another way: the vmcoreinfo device.
			if p.Info.Text != whole.Info.Text {
				t.Errorf("VMCOREINFO is\n%s\nwant\n%s", p.Info.Text, whole.Info.Text)
			}
			if _, ok := p.Symbol("panic"); !ok {
				t.Error("no symbol panic")
			}
		})
	}
}

func TestRecoverFromRegisters(t *testing.T) {
	whole, err := crashkit.Open(fixture.Path(t, fixture.QEMU))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	p, err := crashkit.New(without(t, fixture.QEMU, vmcoreinfo, qemuInfoPage, qemuNotePage))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Limits) == 0 || !strings.Contains(p.Limits[0].Error(), "CR3 and IDTR") {
		t.Errorf("Limits = %v; want how the kernel was found", p.Limits)
	}
	for _, key := range []string{"phys_base", "pgtable_l5_enabled"} {
		got, ok := p.Info.Number(key)
		if want, _ := whole.Info.Number(key); !ok || got != want {
			t.Errorf("%s = %d, %v; want %d", key, got, ok, want)
		}
	}
	got, ok := p.Info.Symbol("_stext")
	if want, _ := whole.Info.Symbol("_stext"); !ok || got != want {
		t.Errorf("_stext = %#x, %v; want %#x", got, ok, want)
	}
	// Not the same tables, but those lead to the same places.
	uts, _ := whole.Info.Symbol("init_uts_ns")
	a, err1 := p.Translate(addr.Virt(uts))
	b, err2 := whole.Translate(addr.Virt(uts))
	if err1 != nil || err2 != nil || a != b {
		t.Errorf("Translate(init_uts_ns) = %v, %v; want %v, %v", a, err1, b, err2)
	}

	_, err = crashkit.New(without(t, fixture.QEMU, func(n dump.Note) bool { return vmcoreinfo(n) || n.Name == "QEMU" }, qemuInfoPage, qemuNotePage))
	if !errors.Is(err, dump.ErrNoVMCoreInfo) || !strings.Contains(err.Error(), "no note of QEMU") {
		t.Errorf("New without notes: %v; want ErrNoVMCoreInfo", err)
	}
}

// TestRecoverCrashed has the capture kernel in memory, too.
func TestRecoverCrashed(t *testing.T) {
	for _, test := range []struct {
		name  string
		pages []addr.PFN
		limit string
	}{
		{"both", nil, "found in memory at 0x11e4018: another one, at 0x9b30018, is that of the capture kernel, " +
			"which runs from 0xfc00000 in memory that this one had reserved for it (0x9000000-0x12ffffff)"},
		{"the crashed one", []addr.PFN{captureOther}, "found in memory at 0x11e4018"},
	} {
		p, err := crashkit.New(without(t, fixture.Capture, vmcoreinfo, test.pages...))
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Limits) != 1 || !strings.HasSuffix(p.Limits[0].Error(), test.limit) {
			t.Errorf("%s: Limits = %v; want %q", test.name, p.Limits, test.limit)
		}
		// Only a kernel that crashed has this.
		if _, ok := p.Info.Get("CRASHTIME"); !ok {
			t.Errorf("%s: VMCOREINFO has no CRASHTIME", test.name)
		}
	}
}

// TestRecoverRaw opens the memory of a guest as a file of nothing else.
func TestRecoverRaw(t *testing.T) {
	img, err := dump.Open(fixture.Path(t, fixture.QEMU))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	path := filepath.Join(t.TempDir(), "ram")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := img.ReadAll(func(pfn addr.PFN, page []byte, err error) error {
		if err == nil && pfn < 512<<20>>12 {
			_, err = f.WriteAt(page, int64(pfn)<<12)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(512<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	want, err := img.VMCoreInfo()
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := dump.ParseRAM("0x0-0x9fc00,0x100000-0x1ffe0000")
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]dump.Options{"detected": {}, "given": {RAM: ranges}, "VMCOREINFO given": {RAM: ranges, VMCoreInfo: []byte(want.Text)}} {
		p, err := crashkit.OpenFiles([]string{path}, o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.Info.Text != want.Text || p.Image.Info().Format != "raw memory" || (len(p.Limits) == 0) != (o.VMCoreInfo != nil) {
			t.Errorf("%s: format %q, VMCOREINFO of %q, Limits %v", name, p.Image.Info().Format, p.Info.OSRelease(), p.Limits)
		}
		if _, ok := p.Symbol("panic"); !ok {
			t.Errorf("%s: no symbol panic", name)
		}
		p.Close()
	}
}

// FuzzRecover has a page of text, registers and a page of page tables.
func FuzzRecover(f *testing.F) {
	f.Add([]byte("OSRELEASE=6\nSYMBOL(init_uts_ns)=ffffffff80004000\nOFFSET(uts_namespace.name)=0\nSYMBOL(swapper_pg_dir)=ffffffff80003000\nNUMBER(phys_base)=0\n"),
		uint64(0x3000), uint64(1<<12), uint64(0xffffffff80004000), []byte("\x63\x30\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte{}, uint64(0x3000), uint64(0), uint64(arch.KernelTextBase), []byte{})
	f.Fuzz(func(t *testing.T, text []byte, cr3, cr4, idt uint64, table []byte) {
		desc := make([]byte, 440)
		for at, v := range map[int]uint64{8 + 18*8 + 9*24 + 16: idt, 8 + 18*8 + 10*24 + 24: cr3, 8 + 18*8 + 10*24 + 32: cr4} {
			for i := range 8 {
				desc[at+i] = byte(v >> (8 * i))
			}
		}
		b := dumptest.Memory{
			Pages: map[addr.PFN][]byte{2: text[:min(len(text), 4096)], 3: table[:min(len(table), 4096)], 4: []byte("x")},
			Notes: []dump.Note{{Name: "QEMU", Desc: desc}},
		}.ELF()
		img, err := dump.NewImage(strings.NewReader(string(b)), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		p, err := crashkit.New(img)
		if (err == nil) == (p == nil) {
			t.Errorf("New = %v, %v", p, err)
		}
		if p != nil && len(p.Limits) == 0 {
			t.Error(fmt.Errorf("opened without saying how VMCOREINFO was found"))
		}
	})
}
