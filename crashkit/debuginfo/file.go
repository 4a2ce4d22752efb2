// Package debuginfo reads the DWARF of a kernel and of its modules: which line of
// which file an address comes from, and which functions were inlined there.
//
// Nothing is indexed that is not asked for. The files are mapped, not read: of
// the 600 MB of a distribution's vmlinux an answer touches the unit that covers
// the address. Decoding is done by package debug/dwarf, given one unit at a time.
package debuginfo

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"crashlab/crashkit/ctype"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/internal/die"
)

// ErrNone is wrapped by the errors about a file without DWARF.
var ErrNone = errors.New("no debug information")

// File is a file with debug information: a vmlinux, or a module's object. It is
// safe for concurrent use.
type File struct {
	Path    string
	BuildID string // GNU build ID in hex; "" if the file has none

	mem      []byte
	elf      *elf.File
	sections map[string][]byte // the DWARF, without ".debug_"; see section

	unpacking sync.Mutex
	packed    map[string]*elf.Section // those that are compressed and were not asked for yet
	damage    map[string]error        // why some could not be unpacked

	aranges func() ([]arange, error)
	types   func() (*ctype.Set, error)
	fdes    func() ([]fde, error)
	mu      sync.Mutex
	units   map[int64]*unit // by offset in .debug_info
}

// Open maps the file at path. Its DWARF must not have to be relocated: it is
// that of a linked kernel.
func Open(path string) (*File, error) { return open(path, nil) }

// OpenModule maps the object of a module, which the kernel loaded in pieces:
// place returns where a section lies in memory, by its name.
func OpenModule(path string, place func(section string) (uint64, bool)) (*File, error) {
	return open(path, place)
}

func open(path string, place func(string) (uint64, bool)) (f *File, err error) {
	// Package debug/elf is not made for hostile files.
	defer func() {
		if r := recover(); r != nil {
			f, err = nil, fmt.Errorf("%s: a damaged ELF file: %v", path, r)
		}
	}()
	mem, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	f = &File{Path: path, mem: mem, units: make(map[int64]*unit)}
	if err := f.read(place); err != nil {
		return nil, errors.Join(fmt.Errorf("debug information of %s: %w", path, err), f.Close())
	}
	f.aranges = sync.OnceValues(f.readAranges)
	f.types = sync.OnceValues(f.readTypes)
	f.fdes = sync.OnceValues(f.readFDEs)
	return f, nil
}

func mapFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 {
		return nil, fmt.Errorf("%s: not a file with anything in it", path)
	}
	mem, err := unix.Mmap(int(file.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return mem, nil
}

// Close releases the file. Nothing may be asked of f afterwards.
func (f *File) Close() error {
	if f.mem == nil {
		return nil
	}
	err := unix.Munmap(f.mem)
	f.mem = nil
	return err
}

// maxSection bounds a compressed section unpacked in memory, in bytes.
const maxSection = 1 << 30

func (f *File) read(place func(string) (uint64, bool)) error {
	var err error
	if f.elf, err = elf.NewFile(bytes.NewReader(f.mem)); err != nil {
		return err
	}
	f.BuildID = buildID(f.elf)
	f.sections, f.packed, f.damage = make(map[string][]byte), make(map[string]*elf.Section), make(map[string]error)
	for i, s := range f.elf.Sections {
		name, ok := strings.CutPrefix(s.Name, ".debug_")
		if !ok || s.Type != elf.SHT_PROGBITS {
			continue
		}
		var b []byte
		switch {
		case s.Flags&elf.SHF_COMPRESSED != 0:
			if f.elf.Type != elf.ET_REL { // a kernel's are large
				f.packed[name] = s
				continue
			}
			if b, err = unpacked(s); err != nil {
				return err
			}
		case s.Offset > uint64(len(f.mem)) || s.Size > uint64(len(f.mem))-s.Offset:
			return fmt.Errorf("%s lies behind the end of the file", s.Name)
		default:
			b = f.mem[s.Offset : s.Offset+s.Size : s.Offset+s.Size]
		}
		if f.elf.Type == elf.ET_REL {
			if b, err = f.relocated(i, b, place); err != nil {
				return fmt.Errorf("relocate %s: %w", s.Name, err)
			}
		}
		f.sections[name] = b
	}
	return nil
}

// unpacked returns the contents of a compressed section.
func unpacked(s *elf.Section) (b []byte, err error) {
	defer guard(s.Name, &err)
	if s.Size > maxSection {
		return nil, fmt.Errorf("%s has %d MB", s.Name, s.Size>>20)
	}
	if b, err = s.Data(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	return b, nil
}

// section returns the contents of the section .debug_NAME; nil if there is none, or if it
// cannot be unpacked, which damaged then says.
func (f *File) section(name string) []byte {
	f.unpacking.Lock()
	defer f.unpacking.Unlock()
	if s, ok := f.packed[name]; ok {
		delete(f.packed, name)
		b, err := unpacked(s)
		if err != nil {
			f.damage[name] = err
		} else {
			f.sections[name] = b
		}
	}
	return f.sections[name]
}

// damaged returns why those of the sections that were asked for are not there which the
// file has.
func (f *File) damaged(names ...string) error {
	f.unpacking.Lock()
	defer f.unpacking.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, f.damage[name])
	}
	return errors.Join(errs...)
}

// Any reports whether the file has DWARF at all: it may be stripped.
func (f *File) Any() bool {
	f.unpacking.Lock()
	defer f.unpacking.Unlock()
	has := func(name string) bool { return len(f.sections[name]) > 0 || f.packed[name] != nil }
	return has("info") && has("abbrev")
}

// relocated returns a copy of the contents of section i of an object file with
// the addresses of what was loaded filled in.
func (f *File) relocated(i int, b []byte, place func(string) (uint64, bool)) ([]byte, error) {
	var relocs []byte
	for _, s := range f.elf.Sections {
		if s.Type == elf.SHT_RELA && int(s.Info) == i { //nolint:misspell // relocations with addends
			if s.Offset > uint64(len(f.mem)) || s.Size > uint64(len(f.mem))-s.Offset {
				return nil, errors.New("its relocations lie behind the end of the file")
			}
			relocs = f.mem[s.Offset : s.Offset+s.Size]
		}
	}
	if relocs == nil {
		return b, nil
	}
	syms, err := f.elf.Symbols()
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(b)
	le := binary.LittleEndian
	for ; len(relocs) >= 24; relocs = relocs[24:] { // offset, info, addend
		off, info, addend := le.Uint64(relocs), le.Uint64(relocs[8:]), le.Uint64(relocs[16:])
		sym := info >> 32
		if sym == 0 || sym > uint64(len(syms)) {
			continue
		}
		s := syms[sym-1]
		if int(s.Section) >= len(f.elf.Sections) {
			continue // undefined, absolute
		}
		// Debug sections refer to each other by offset; what was loaded has an
		// address; what was not, such as the exit code, gets none.
		base := uint64(0)
		if name := f.elf.Sections[s.Section].Name; !strings.HasPrefix(name, ".debug_") && place != nil {
			at, ok := place(name)
			if !ok {
				continue
			}
			base = at
		}
		v := base + s.Value + addend
		switch elf.R_X86_64(info & 0xffffffff) {
		case elf.R_X86_64_64:
			if off <= uint64(len(out)) && uint64(len(out))-off >= 8 {
				le.PutUint64(out[off:], v)
			}
		case elf.R_X86_64_32, elf.R_X86_64_32S:
			if off <= uint64(len(out)) && uint64(len(out))-off >= 4 {
				le.PutUint32(out[off:], uint32(v))
			}
		}
	}
	return out, nil
}

// maxNoteSection bounds the note section of a file, in bytes.
const maxNoteSection = 1 << 20

// buildID returns the GNU build ID of an ELF file in hex, "" if it has none.
func buildID(f *elf.File) string {
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOTE || s.FileSize > maxNoteSection {
			continue
		}
		b, err := s.Data()
		if err != nil {
			continue
		}
		notes, _ := dump.ParseNotes(b) // those before the damage
		for _, n := range notes {
			if n.Name == "GNU" && n.Type == 3 { // NT_GNU_BUILD_ID
				return hex.EncodeToString(n.Desc)
			}
		}
	}
	return ""
}

// data returns the DWARF with the bytes of .debug_info in info.
func (f *File) data(info []byte) (*dwarf.Data, error) {
	d, err := dwarf.New(f.section("abbrev"), nil, nil, info, f.section("line"), nil, f.section("ranges"), f.section("str"))
	if err != nil {
		return nil, err
	}
	more := []string{"addr", "line_str", "str_offsets", "rnglists"}
	for _, name := range more {
		if b := f.section(name); b != nil {
			if err := d.AddSection(".debug_"+name, b); err != nil {
				return nil, err
			}
		}
	}
	return d, f.damaged(append(more, "abbrev", "line", "ranges", "str")...)
}

// Types returns the types that the file's units define. None of them is read before
// it is asked for. The error wraps ErrNone if the file has no DWARF.
func (f *File) Types() (*ctype.Set, error) { return f.types() }

func (f *File) readTypes() (*ctype.Set, error) {
	if !f.Any() {
		return nil, fmt.Errorf("%w in %s", ErrNone, f.Path)
	}
	s := die.Sections{
		Info: f.section("info"), Abbrev: f.section("abbrev"), Str: f.section("str"), LineStr: f.section("line_str"),
		StrOffsets: f.section("str_offsets"), Addr: f.section("addr"),
	}
	if err := f.damaged("info", "abbrev", "str", "line_str", "str_offsets", "addr"); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return ctype.FromDWARF(die.New(s))
}
