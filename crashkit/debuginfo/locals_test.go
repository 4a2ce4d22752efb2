package debuginfo

import (
	"bytes"
	"debug/elf"
	"sync"
	"testing"
)

// FuzzLocals looks for variables in files with anything in their sections.
func FuzzLocals(f *testing.F) {
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
		f.Add(section("info"), section("abbrev"), section("loclists"), section("loc"), section("rnglists"), section("str"), uint64(0x401020))
	}
	f.Fuzz(func(t *testing.T, info, abbrev, loclists, loc, rnglists, str []byte, pc uint64) {
		file := &File{Path: "fuzz", units: make(map[int64]*unit), sections: map[string][]byte{
			"info": info, "abbrev": abbrev, "loclists": loclists, "loc": loc, "rnglists": rnglists, "ranges": rnglists, "str": str, "addr": str,
		}}
		file.aranges = sync.OnceValues(file.readAranges)
		file.types = sync.OnceValues(file.readTypes)
		var regs registerSet
		regs.set(regRSP, 0x8000)
		try := func(pc uint64) {
			m := &moment{f: file, pc: pc, back: pc + 1, regs: regs, cfa: 0x8010, hasCFA: true, mem: words{}}
			m.caller = m
			scopes, err := m.scopes()
			if err != nil {
				return
			}
			for _, s := range scopes {
				for _, v := range s.Variables {
					_ = v.Type.String()
					_, _ = v.Value.Uint()
				}
			}
		}
		try(pc)
		if all, err := file.aranges(); err == nil && len(all) > 0 {
			try(all[0].low)
		}
	})
}
