// Prunedwarf makes a test fixture of a kernel's debug information: a vmlinux with
// only the units that define what package kernel says the analyzer needs, and those
// that are named, as the compiler made them.
//
//	go run ./crashkit/internal/prunedwarf -o OUT VMLINUX [UNIT…]
//
// A UNIT is the end of the name of a source file, such as init/main.c. The kernel's
// DWARF must be of version 5 and in one piece.
package main

import (
	"bytes"
	"compress/zlib"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"crashlab/crashkit/ctype"
	"crashlab/crashkit/internal/die"
	"crashlab/crashkit/kernel"
)

func main() {
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if flag.NArg() < 1 || *out == "" {
		fmt.Fprintln(os.Stderr, "usage: prunedwarf -o OUT VMLINUX [UNIT…]")
		os.Exit(2)
	}
	if err := prune(flag.Arg(0), *out, flag.Args()[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "prunedwarf:", err)
		os.Exit(1)
	}
}

// pruner copies what is kept of each section to its old place, so that what refers to
// it stays as it is. Only the units move together.
type pruner struct {
	in, out map[string][]byte
	moved   map[uint64]uint64 // units, by their old offsets
	tables  []uint64          // of all units in .debug_abbrev
	ranges  [][2]uint64       // addresses of code of the units that are kept
}

func prune(in, out string, names []string) error {
	f, err := elf.Open(in)
	if err != nil {
		return err
	}
	defer f.Close()
	p := &pruner{in: make(map[string][]byte), out: make(map[string][]byte), moved: make(map[uint64]uint64)}
	for _, name := range []string{"info", "abbrev", "str", "line_str", "line", "loclists", "rnglists", "aranges", "frame"} {
		s := f.Section(".debug_" + name)
		if s == nil {
			return fmt.Errorf("%s has no .debug_%s", in, name)
		}
		if p.in[name], err = s.Data(); err != nil {
			return err
		}
	}
	p.out["line_str"] = p.in["line_str"]
	units, err := p.choose(names)
	if err != nil {
		return err
	}
	for _, u := range units {
		if err := p.keep(u); err != nil {
			return err
		}
	}
	if err := errors.Join(p.keepAranges(), p.keepFrames()); err != nil {
		return err
	}
	return p.write(out, f)
}

// choose returns the units of those names, and the fewest bytes of others that define
// what is needed.
func (p *pruner) choose(names []string) ([]*die.Unit, error) {
	all, err := die.New(die.Sections{Info: p.in["info"], Abbrev: p.in["abbrev"], Str: p.in["str"], LineStr: p.in["line_str"]}).Units()
	if err != nil {
		return nil, err
	}
	var chosen []*die.Unit
	types := make(map[*die.Unit]*ctype.Set)
	for _, u := range all {
		p.tables = append(p.tables, p.table(u))
		// Each unit by itself: what it defines, not what another one does.
		d := die.New(die.Sections{Info: p.in["info"][u.Off:u.End], Abbrev: p.in["abbrev"], Str: p.in["str"], LineStr: p.in["line_str"]})
		if types[u], err = ctype.FromDWARF(d); err != nil {
			return nil, err
		}
		root, err := d.Entry(u.Root - u.Off)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix("/"+root.Name(), "/"+name) }) {
			chosen = append(chosen, u)
		}
	}
	if len(chosen) != len(names) {
		return nil, fmt.Errorf("%d units have the %d names", len(chosen), len(names))
	}
	defines := func(u *die.Unit, n kernel.Need) bool {
		_, _, err := n.Find(types[u])
		return err == nil
	}
	for _, n := range kernel.Layout() {
		if slices.ContainsFunc(chosen, func(u *die.Unit) bool { return defines(u, n) }) {
			continue
		}
		var best *die.Unit
		for _, u := range all {
			if (best == nil || u.End-u.Off < best.End-best.Off) && defines(u, n) {
				best = u
			}
		}
		if best != nil {
			chosen = append(chosen, best)
		} else {
			fmt.Fprintf(os.Stderr, "this kernel has no %s %v\n", n.Type, n.Any)
		}
	}
	return chosen, nil
}

// table returns where the unit's abbreviations are.
func (p *pruner) table(u *die.Unit) uint64 {
	return uint64(binary.LittleEndian.Uint32(p.in["info"][u.Off+8:]))
}

// copy keeps the bytes [from, to) of a section.
func (p *pruner) copy(section string, from, to uint64) {
	if n := int(to) - len(p.out[section]); n > 0 {
		p.out[section] = append(p.out[section], make([]byte, n)...)
	}
	copy(p.out[section][from:to], p.in[section][from:to])
}

const attrLocviews dwarf.Attr = 0x2137 // DW_AT_GNU_locviews

// keep keeps a unit and all that it refers to.
func (p *pruner) keep(u *die.Unit) error {
	p.moved[u.Off] = uint64(len(p.out["info"]))
	p.out["info"] = append(p.out["info"], p.in["info"][u.Off:u.End]...)
	abbrev := p.table(u)
	end := uint64(len(p.in["abbrev"])) // tables lie one behind the other
	for _, at := range p.tables {
		if at > abbrev {
			end = min(end, at)
		}
	}
	p.copy("abbrev", abbrev, end)
	r, err := u.Reader(u.Root)
	if err != nil {
		return err
	}
	var e die.Entry
	for r.Next(&e) {
		for _, v := range e.Values {
			switch {
			case v.Attr == attrLocviews: // for debuggers that step
			case v.Class == die.Offset && v.Attr == dwarf.AttrStmtList:
				p.copy("line", v.U, v.U+4+uint64(binary.LittleEndian.Uint32(p.in["line"][v.U:])))
			case v.Class == die.Offset && v.Attr == dwarf.AttrRanges:
				p.copy("rnglists", v.U, v.U+list(p.in["rnglists"][v.U:], false))
			case v.Class == die.Offset:
				p.copy("loclists", v.U, v.U+list(p.in["loclists"][v.U:], true))
			}
			if off, ok := v.StrOffset(); ok {
				p.copy("str", off, off+uint64(bytes.IndexByte(p.in["str"][off:], 0))+1)
			}
		}
	}
	return r.Err()
}

// list returns the length in bytes of a list of ranges or of locations (DWARF 5, 7.25
// and 7.7.3).
func list(b []byte, locations bool) uint64 {
	at := uint64(0)
	uleb := func() uint64 {
		v, shift := uint64(0), 0
		for {
			c := b[at]
			at++
			v |= uint64(c&0x7f) << shift
			shift += 7
			if c < 0x80 {
				return v
			}
		}
	}
	for {
		kind := b[at]
		at++
		described := locations
		switch kind {
		case 0:
			return at
		case 1: // base_addressx
			uleb()
			described = false
		case 2, 3, 4: // startx_endx, startx_length, offset_pair
			uleb()
			uleb()
		case 5: // base_address, or a default location
			if !locations {
				at += 8
			}
		case 6:
			if at += 8; locations { // base_address
				described = false
			} else { // start_end
				at += 8
			}
		case 7:
			if at += 8; locations { // start_end
				at += 8
			} else { // start_length
				uleb()
			}
		case 8: // start_length
			at += 8
			uleb()
		}
		if described {
			n := uleb()
			at += n
		}
	}
}

// keepAranges keeps the tables of the units that are kept.
func (p *pruner) keepAranges() error {
	for b := p.in["aranges"]; len(b) >= 16; {
		set := b[:4+binary.LittleEndian.Uint32(b)]
		b = b[len(set):]
		if to, ok := p.moved[uint64(binary.LittleEndian.Uint32(set[6:]))]; ok {
			set = bytes.Clone(set)
			binary.LittleEndian.PutUint32(set[6:], uint32(to))
			p.out["aranges"] = append(p.out["aranges"], set...)
			for i := 16; i+16 <= len(set); i += 16 {
				low := binary.LittleEndian.Uint64(set[i:])
				p.ranges = append(p.ranges, [2]uint64{low, low + binary.LittleEndian.Uint64(set[i+8:])})
			}
		}
	}
	return nil
}

// keepFrames keeps the rules for unwinding of the functions of those units.
func (p *pruner) keepFrames() error {
	cies := make(map[uint32]uint32)
	b := p.in["frame"]
	for at := uint32(0); int(at)+8 <= len(b); {
		n := binary.LittleEndian.Uint32(b[at:]) + 4
		if n == 3 { // 0xffffffff, and 4
			return errors.New(".debug_frame has long entries")
		}
		e := bytes.Clone(b[at : at+n])
		cie := binary.LittleEndian.Uint32(e[4:])
		switch {
		case cie == 0xffffffff:
			cies[at] = uint32(len(p.out["frame"]))
		default:
			low := binary.LittleEndian.Uint64(e[8:])
			if !slices.ContainsFunc(p.ranges, func(r [2]uint64) bool { return r[0] <= low && low < r[1] }) {
				e = nil
				break
			}
			binary.LittleEndian.PutUint32(e[4:], cies[cie])
		}
		p.out["frame"] = append(p.out["frame"], e...)
		at += n
	}
	return nil
}

// write writes an ELF file with the build ID of f.
func (p *pruner) write(path string, f *elf.File) error {
	notes := f.Section(".notes")
	if notes == nil {
		return errors.New("no .notes")
	}
	note, err := notes.Data()
	if err != nil {
		return err
	}
	var body bytes.Buffer
	names := []byte{0}
	sections := []elf.Section64{{}}
	add := func(name string, s elf.Section64, b []byte) {
		s.Name, s.Off, s.Size = uint32(len(names)), uint64(64+body.Len()), uint64(len(b))
		names = append(append(names, name...), 0)
		body.Write(b)
		sections = append(sections, s)
	}
	add(".notes", elf.Section64{Type: uint32(elf.SHT_NOTE), Addralign: 4}, note)
	for _, name := range []string{"info", "abbrev", "str", "line_str", "line", "loclists", "rnglists", "aranges", "frame"} {
		var z bytes.Buffer
		if err := binary.Write(&z, binary.LittleEndian, elf.Chdr64{Type: uint32(elf.COMPRESS_ZLIB), Size: uint64(len(p.out[name])), Addralign: 1}); err != nil {
			return err
		}
		w, err := zlib.NewWriterLevel(&z, zlib.BestCompression)
		if err != nil {
			return err
		}
		if _, err := w.Write(p.out[name]); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		add(".debug_"+name, elf.Section64{Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_COMPRESSED), Addralign: 8}, z.Bytes())
	}
	names = append(names, ".shstrtab\x00"...)
	sections = append(sections, elf.Section64{
		Name: uint32(len(names) - len(".shstrtab\x00")), Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + body.Len()), Size: uint64(len(names)), Addralign: 1,
	})
	body.Write(names)
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64,
		Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: uint16(len(sections) - 1), Shoff: uint64(64 + body.Len()),
	}
	var file bytes.Buffer
	for _, part := range []any{h, body.Bytes(), sections} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			return err
		}
	}
	return os.WriteFile(path, file.Bytes(), 0o666)
}
