package debuginfo

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"crashlab/crashkit/internal/fixture"
)

// sourceLines reads what addr2line -a -f -i printed: for each address the
// functions, innermost first, with file and line.
func sourceLines(t *testing.T, name string) map[uint64][]Place {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[uint64][]Place)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	var at uint64
	for i := 0; i < len(lines); i++ {
		if text, ok := strings.CutPrefix(lines[i], "0x"); ok {
			if at, err = strconv.ParseUint(text, 16, 64); err != nil {
				t.Fatal(err)
			}
			continue
		}
		p := Place{Function: lines[i]}
		i++
		file, line, _ := strings.Cut(lines[i], ":")
		line, _, _ = strings.Cut(line, " ") // a discriminator
		p.File = file
		p.Line, _ = strconv.Atoi(line) // "?" is 0
		all[at] = append(all[at], p)
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return all
}

// compare compares the places of all addresses with those that addr2line found.
func compare(t *testing.T, f *File, base uint64, want map[uint64][]Place) {
	t.Helper()
	syms, err := f.elf.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	covered := func(pc uint64) bool {
		return slices.ContainsFunc(syms, func(s elf.Symbol) bool {
			return elf.ST_TYPE(s.Info) == elf.STT_FUNC && f.elf.Sections[s.Section].Name == ".text" && s.Value <= pc && pc < s.Value+s.Size
		})
	}
	inlined := 0
	for pc, want := range want {
		if !covered(pc) {
			continue // what fills the space between functions; addr2line counts it to the one before
		}
		got, err := f.Places(base + pc)
		if err != nil {
			t.Fatalf("Places(%#x): %v", pc, err)
		}
		if len(got) != len(want) {
			t.Errorf("Places(%#x) = %+v; want %+v", pc, got, want)
			continue
		}
		inlined += len(want) - 1
		for i, w := range want {
			g := got[i]
			if g.Function != w.Function || g.Line != w.Line || !strings.HasSuffix(w.File, g.File) || g.Inlined != (i < len(want)-1) {
				t.Errorf("Places(%#x)[%d] = %+v; want %+v", pc, i, g, w)
			}
		}
	}
	if inlined == 0 {
		t.Error("nothing was inlined: the comparison proves little")
	}
}

func openTest(t *testing.T, name string) *File {
	t.Helper()
	f, err := Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// TestPlaces compares every byte of a program with what addr2line says.
func TestPlaces(t *testing.T) {
	for name, truth := range map[string]string{
		"inline-dwarf4": "inline-dwarf4.addr2line",
		"inline-dwarf5": "inline-dwarf5.addr2line",
		"inline-zlib":   "inline-dwarf5.addr2line",
		"inline-zstd":   "inline-dwarf5.addr2line",
	} {
		t.Run(name, func(t *testing.T) {
			f := openTest(t, name)
			if want := "0102030405060708090a0b0c0d0e0f1011121314"; f.BuildID != want {
				t.Errorf("BuildID = %s; want %s", f.BuildID, want)
			}
			compare(t, f, 0, sourceLines(t, truth))
		})
	}
}

// TestPlacesWithoutAranges has to ask the units for their addresses, as for what
// clang compiled.
func TestPlacesWithoutAranges(t *testing.T) {
	f := openTest(t, "inline-dwarf5")
	delete(f.sections, "aranges")
	compare(t, f, 0, sourceLines(t, "inline-dwarf5.addr2line"))
}

// TestModule compares a module of a distribution, loaded where the test says.
func TestModule(t *testing.T) {
	const base = 0xffffffffc0123000
	f, err := OpenModule(filepath.Join("testdata", "virtio_blk.ko"), func(section string) (uint64, bool) {
		return base, section == ".text"
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	compare(t, f, base, sourceLines(t, "virtio_blk.addr2line"))
	if got, err := f.Places(base - 1); len(got) != 0 || err != nil {
		t.Errorf("Places of what is not the module's = %+v, %v; want nothing", got, err)
	}
}

// TestModuleDebug is TestModule with the debug information in a file of its own, which
// has of the module itself only the section headers.
func TestModuleDebug(t *testing.T) {
	b := readTest(t, "virtio_blk.ko")
	e, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	table := binary.LittleEndian.Uint64(b[40:]) // e_shoff
	for i, s := range e.Sections {
		if s.Type == elf.SHT_PROGBITS && s.Flags&elf.SHF_ALLOC != 0 {
			clear(b[s.Offset : s.Offset+s.FileSize])
			binary.LittleEndian.PutUint32(b[table+64*uint64(i)+4:], uint32(elf.SHT_NOBITS))
		}
	}
	path := filepath.Join(t.TempDir(), "virtio_blk.ko.debug")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	const base = 0xffffffffc0123000
	f, err := OpenModule(path, func(section string) (uint64, bool) { return base, section == ".text" })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if want := "bc8f0c86e2f2f261ea820d8c1f17de705b81d772"; f.BuildID != want {
		t.Errorf("BuildID = %s; want %s", f.BuildID, want)
	}
	compare(t, f, base, sourceLines(t, "virtio_blk.addr2line"))
}

func TestOpenWhatHasNone(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"empty":     nil,
		"text":      []byte("not an ELF file"),
		"truncated": readTest(t, "inline-dwarf5")[:200],
		"stripped":  withoutDebug(t),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if name != "stripped" {
			if err == nil {
				t.Errorf("Open of a file that is %s succeeded", name)
			}
			continue
		}
		if err != nil {
			t.Fatalf("Open of a file that is %s: %v", name, err)
		}
		defer f.Close()
		if _, err := f.Places(0x401020); f.Any() || !errors.Is(err, ErrNone) {
			t.Errorf("Places in a file that is %s: %v; want %v", name, err, ErrNone)
		}
	}
}

func readTest(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A compressed section is unpacked when it is asked for, and damage in it is an error then.
func TestDamagedSection(t *testing.T) {
	b := readTest(t, "inline-zlib")
	e, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	line := e.Section(".debug_line")
	clear(b[line.Offset+24 : line.Offset+line.FileSize]) // behind the struct that says how it is compressed
	path := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if places, err := f.Places(0x401020); err == nil || !strings.Contains(err.Error(), ".debug_line") {
		t.Errorf("Places() = %+v, %v; want an error about .debug_line", places, err)
	}
	if _, err := f.Types(); err != nil {
		t.Errorf("Types() = %v; want those, of which nothing is damaged", err)
	}
}

// withoutDebug returns a program whose sections of DWARF have other names.
func withoutDebug(t *testing.T) []byte {
	t.Helper()
	return bytes.ReplaceAll(readTest(t, "inline-dwarf5"), []byte(".debug_"), []byte(".gebug_"))
}

// FuzzPlaces opens files with anything in their sections. There is an answer or an
// error, and no end to neither time nor memory.
func FuzzPlaces(f *testing.F) {
	for _, name := range []string{"inline-dwarf4", "inline-dwarf5"} {
		e, err := elf.NewFile(bytes.NewReader(readTest(f, name)))
		if err != nil {
			f.Fatal(err)
		}
		section := func(name string) []byte {
			s := e.Section(".debug_" + name)
			if s == nil {
				return nil
			}
			b, err := s.Data()
			if err != nil {
				f.Fatal(err)
			}
			return b
		}
		f.Add(section("info"), section("abbrev"), section("line"), section("aranges"), section("rnglists"), section("ranges"), section("str"), uint64(0x401020))
	}
	f.Fuzz(func(t *testing.T, info, abbrev, line, aranges, rnglists, ranges, str []byte, pc uint64) {
		file := &File{Path: "fuzz", units: make(map[int64]*unit), sections: map[string][]byte{
			"info": info, "abbrev": abbrev, "line": line, "aranges": aranges, "rnglists": rnglists, "ranges": ranges, "str": str,
		}}
		file.aranges = func() ([]arange, error) { return file.readAranges() }
		_, _ = file.Places(pc)
		if all, err := file.aranges(); err == nil && len(all) > 0 {
			_, _ = file.Places(all[0].low)
		}
	})
}

// FuzzOpen opens hostile files, as a module's so that they are relocated too.
func FuzzOpen(f *testing.F) {
	f.Add(readTest(f, "inline-dwarf4"))
	f.Add(readTest(f, "inline-zlib"))
	f.Add(readTest(f, "inline-zstd"))
	n := 0
	f.Fuzz(func(t *testing.T, b []byte) {
		n++
		path := filepath.Join(t.TempDir(), fmt.Sprint(n))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := OpenModule(path, func(string) (uint64, bool) { return 0xffffffffc0000000, true })
		if err != nil {
			return
		}
		_, _ = file.Places(0x401020)
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkTypes opens a kernel's debug information and finds a type in it.
func BenchmarkTypes(b *testing.B) {
	path := fixture.Path(b, fixture.VMLinux)
	b.ReportAllocs()
	for b.Loop() {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		types, err := f.Types()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := types.Lookup("struct task_struct"); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
