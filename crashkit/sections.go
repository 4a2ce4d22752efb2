package crashkit

import (
	"encoding/hex"
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/dump"
)

// maxSections bounds the sections of a module.
const maxSections = 1024

// ModuleSections returns where the sections of a module lie, by their names in
// its object file, from what /sys/module/NAME/sections shows
// (kernel/module/sysfs.c). Those of code that runs once are gone after init.
func (p *Program) ModuleSections(m *Module) (map[string]addr.Virt, error) {
	attrs := m.Object.Member("sect_attrs").Deref()
	if err := attrs.Err(); err != nil {
		return nil, err
	}
	all := make(map[string]addr.Virt)
	add := func(name ctype.Object, at ctype.Object) error {
		text, err := name.Str()
		if err != nil {
			return err
		}
		v, err := at.Ptr()
		if err != nil {
			return err
		}
		all[text] = v
		return nil
	}
	if attrs.Has("nsections") {
		n, err := attrs.Member("nsections").Uint()
		if err != nil {
			return nil, err
		}
		if n > maxSections {
			return nil, fmt.Errorf("%s: %d sections", attrs.Path(), n)
		}
		for i := range int(n) {
			a := attrs.Member("attrs").Index(i)
			// battr since Linux commit ed66f991bb19 ("module: Refactor section
			// attr into bin attribute") (in v5.8).
			if err := add(a.Member("battr.attr.name"), a.Member("address")); err != nil {
				return all, err
			}
		}
		return all, nil
	}
	// Since Linux commit 4b2c11e4aaf7 ("module: sysfs: Drop member
	// 'module_sect_attrs::nsections'") (in v6.14): the attributes themselves, with the
	// address in their private pointer; a group lists them up to a nil.
	list := attrs.Member("grp.bin_attrs")
	first, err := list.Ptr()
	if err != nil {
		return nil, err
	}
	for i := range maxSections {
		v, err := p.Uint64(first + addr.Virt(8*i))
		if err != nil {
			return all, err
		}
		if v == 0 {
			return all, nil
		}
		a := p.ObjectAt(addr.Virt(v), "struct bin_attribute")
		if err := add(a.Member("attr.name"), a.Member("private")); err != nil {
			return all, err
		}
	}
	return all, fmt.Errorf("%s: more than %d sections", attrs.Path(), maxSections)
}

// ModuleBuildID returns the GNU build ID of a module in hex, from the note that
// the linker put into it.
func (p *Program) ModuleBuildID(m *Module) (string, error) {
	const note = ".note.gnu.build-id"
	sections, err := p.ModuleSections(m)
	at, ok := sections[note]
	if !ok {
		return "", errors.Join(fmt.Errorf("module %s has no %s", m.Name, note), err)
	}
	b := make([]byte, 64) // a header, "GNU" and up to 32 bytes
	for len(b) > 36 && p.Read(at, b) != nil {
		b = b[:len(b)-4]
	}
	if err := p.Read(at, b); err != nil {
		return "", fmt.Errorf("%s of module %s: %w", note, m.Name, err)
	}
	notes, err := dump.ParseNotes(b)
	for _, n := range notes {
		if n.Name == "GNU" && n.Type == 3 { // NT_GNU_BUILD_ID
			return hex.EncodeToString(n.Desc), nil
		}
	}
	return "", errors.Join(fmt.Errorf("%s of module %s is none", note, m.Name), err)
}
