package die

import (
	"bytes"
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unit5 returns a unit of version 5 with these entries, in the 32-bit or the 64-bit format.
func unit5(wide bool, abbrev uint64, entries []byte) []byte {
	le := binary.LittleEndian
	body := []byte{5, 0, unitCompile, 8}
	if wide {
		body = le.AppendUint64(body, abbrev)
	} else {
		body = le.AppendUint32(body, uint32(abbrev))
	}
	body = append(body, entries...)
	if wide {
		return append(le.AppendUint64([]byte{0xff, 0xff, 0xff, 0xff}, uint64(len(body))), body...)
	}
	return append(le.AppendUint32(nil, uint32(len(body))), body...)
}

// uleb returns numbers as LEB128.
func uleb(all ...uint64) []byte {
	var b []byte
	for _, v := range all {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// Every form, with values as DWARF 5, 7.5.6 writes them.
func TestForms(t *testing.T) {
	for _, wide := range []bool{false, true} {
		offset := func(v uint32) []byte {
			b := binary.LittleEndian.AppendUint32(nil, v)
			if wide {
				b = append(b, 0, 0, 0, 0)
			}
			return b
		}
		header := uint64(12)
		if wide {
			header = 24
		}
		for _, c := range []struct {
			name string
			form form
			b    []byte
			want Value
		}{
			{"data1", formData1, []byte{0xfe}, Value{Class: Constant, U: 0xfe}},
			{"data2", formData2, []byte{1, 2}, Value{Class: Constant, U: 0x201}},
			{"data4", formData4, []byte{1, 2, 3, 4}, Value{Class: Constant, U: 0x4030201}},
			{"data8", formData8, []byte{1, 0, 0, 0, 0, 0, 0, 0x80}, Value{Class: Constant, U: 1<<63 | 1}},
			{"data16", formData16, bytes.Repeat([]byte{7}, 16), Value{Class: Block, B: bytes.Repeat([]byte{7}, 16)}},
			{"sdata", formSdata, []byte{0x7f}, Value{Class: Constant, Signed: true, U: ^uint64(0)}},
			{"udata", formUdata, uleb(300), Value{Class: Constant, U: 300}},
			{"addr", formAddr, []byte{1, 0, 0, 0, 0, 0, 0, 0xff}, Value{Class: Address, U: 0xff00000000000001}},
			{"addrx", formAddrx, uleb(2), Value{Class: Address, U: 2}},
			{"addrx3", 0x2b, []byte{1, 2, 3}, Value{Class: Address, U: 0x30201}},
			{"block1", formBlock1, []byte{2, 8, 9}, Value{Class: Block, B: []byte{8, 9}}},
			{"block2", formBlock2, []byte{1, 0, 8}, Value{Class: Block, B: []byte{8}}},
			{"block4", formBlock4, []byte{1, 0, 0, 0, 8}, Value{Class: Block, B: []byte{8}}},
			{"block", formBlock, []byte{1, 8}, Value{Class: Block, B: []byte{8}}},
			{"exprloc", formExprloc, []byte{1, 0x9c}, Value{Class: Block, Expr: true, B: []byte{0x9c}}},
			{"flag", formFlag, []byte{1}, Value{Class: Flag, U: 1}},
			{"flag_present", formFlagPresent, nil, Value{Class: Flag, U: 1}},
			{"ref1", formRef1, []byte{9}, Value{Class: Ref, U: 9}},
			{"ref2", formRef2, []byte{9, 1}, Value{Class: Ref, U: 0x109}},
			{"ref4", formRef4, []byte{9, 0, 0, 0}, Value{Class: Ref, U: 9}},
			{"ref8", formRef8, []byte{9, 0, 0, 0, 0, 0, 0, 0}, Value{Class: Ref, U: 9}},
			{"ref_udata", formRefUdata, uleb(200), Value{Class: Ref, U: 200}},
			{"ref_addr", formRefAddr, offset(77), Value{Class: Ref, U: 77}},
			{"ref_sig8", formRefSig8, []byte{1, 2, 3, 4, 5, 6, 7, 8}, Value{U: 0x0807060504030201}},
			{"sec_offset", formSecOffset, offset(77), Value{Class: Offset, U: 77}},
			{"loclistx", formLoclistx, uleb(5), Value{Class: Loclist, U: 5}},
			{"rnglistx", formRnglistx, uleb(5), Value{U: 5}},
			{"string", formString, []byte("abc\x00"), Value{Class: String, B: []byte("abc")}},
			{"strp", formStrp, offset(1), Value{Class: String, U: 1}},
			{"line_strp", formLineStrp, offset(1), Value{Class: String, U: 1}},
			{"strx2", formStrx2, []byte{1, 0}, Value{Class: String, U: 1}},
			{"implicit_const", formImplicitConst, nil, Value{Class: Constant, Signed: true, U: ^uint64(1)}},
			{"indirect", formIndirect, append(uleb(uint64(formData1)), 6), Value{Class: Constant, U: 6}},
		} {
			abbrev := uleb(1, uint64(dwarf.TagVariable))
			abbrev = append(abbrev, 0)
			abbrev = append(abbrev, uleb(uint64(dwarf.AttrName), uint64(c.form))...)
			if c.form == formImplicitConst {
				abbrev = append(abbrev, 0x7e) // -2
			}
			// What comes behind must be found.
			abbrev = append(abbrev, append(uleb(uint64(dwarf.AttrByteSize), uint64(formData1)), 0, 0, 0)...)
			entry := append(append([]byte{1}, c.b...), 0x5a)
			d := New(Sections{
				Info: unit5(wide, 0, entry), Abbrev: abbrev,
				Str: []byte("\x00one\x00"), LineStr: []byte("\x00two\x00"), StrOffsets: []byte{0, 0, 0, 0, 1, 0, 0, 0},
			})
			e, err := d.Entry(header)
			if err != nil {
				t.Errorf("%s (wide: %v): %v", c.name, wide, err)
				continue
			}
			got := e.Values[0]
			size, _ := e.Uint(dwarf.AttrByteSize)
			got.form, got.Attr = 0, 0
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(Value{})); d != "" || size != 0x5a {
				t.Errorf("%s (wide: %v), behind it %#x: -want +got:\n%s", c.name, wide, size, d)
			}
			names := map[form]string{formString: "abc", formStrp: "one", formLineStrp: "two"}
			if want, ok := names[c.form]; ok && e.Name() != want {
				t.Errorf("%s (wide: %v): Name() = %q; want %q", c.name, wide, e.Name(), want)
			}
		}
	}
}

// The parts of tables that a unit's own entry names.
func TestIndexedForms(t *testing.T) {
	abbrev := append(uleb(1, uint64(dwarf.TagCompileUnit)), 0)
	abbrev = append(abbrev, uleb(
		uint64(dwarf.AttrName), uint64(formStrx1), uint64(dwarf.AttrLowpc), uint64(formAddrx),
		uint64(dwarf.AttrStrOffsetsBase), uint64(formSecOffset), uint64(dwarf.AttrAddrBase), uint64(formSecOffset), 0, 0, 0)...)
	d := New(Sections{
		Info: unit5(false, 0, []byte{1, 1, 1, 8, 0, 0, 0, 8, 0, 0, 0}), Abbrev: abbrev, Str: []byte("\x00one\x00two\x00"),
		StrOffsets: []byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0},
		Addr:       binary.LittleEndian.AppendUint64(make([]byte, 16), 0x1234),
	})
	e, err := d.Entry(12)
	if err != nil {
		t.Fatal(err)
	}
	low, _ := e.Value(dwarf.AttrLowpc)
	if v, ok := e.Addr(low); e.Name() != "two" || v != 0x1234 || !ok {
		t.Errorf("name %q, address %#x, %v; want two, 0x1234", e.Name(), v, ok)
	}
}

func TestDamaged(t *testing.T) {
	abbrev := append(uleb(1, uint64(dwarf.TagCompileUnit)), 1, 0, 0, 0)
	good := unit5(false, 0, []byte{1, 0})
	for _, c := range []struct {
		name string
		s    Sections
	}{
		{"cut header", Sections{Info: good[:8], Abbrev: abbrev}},
		{"longer than the section", Sections{Info: good[:len(good)-1], Abbrev: abbrev}},
		{"no abbreviations", Sections{Info: good}},
		{"cut abbreviations", Sections{Info: good, Abbrev: abbrev[:3]}},
		{"unknown code", Sections{Info: unit5(false, 0, []byte{9, 0}), Abbrev: abbrev}},
		{"unknown form", Sections{Info: good, Abbrev: append(uleb(1, uint64(dwarf.TagCompileUnit)), 1, 3, 0x7f, 0, 0, 0)}},
	} {
		if e, err := New(c.s).Entry(12); err == nil {
			t.Errorf("%s: Entry(12) = %+v; want an error", c.name, e)
		}
	}
	if _, err := New(Sections{Info: good[:8]}).Units(); !errors.Is(err, ErrCut) {
		t.Errorf("Units() of a cut header: %v; want %v", err, ErrCut)
	}
}

// A file whose units all have another part of one endless table is given up.
func TestTablesAreBounded(t *testing.T) {
	const n = 4000
	abbrev := bytes.Repeat([]byte{1, 0x34, 0, 3, 8, 0, 0}, n)
	var info []byte
	for i := range n {
		info = append(info, unit5(false, uint64(7*i), []byte{0})...)
	}
	units, err := New(Sections{Info: info, Abbrev: abbrev}).Units()
	if err != nil || len(units) != n {
		t.Fatalf("%d units, %v; want %d", len(units), err, n)
	}
	var last error
	for _, u := range units {
		_, last = u.Reader(u.Root)
	}
	if !errors.Is(last, errTables) && !errors.Is(last, ErrCut) {
		t.Errorf("the last unit: %v; want %v", last, errTables)
	}
}

// FuzzRead reads all that damaged sections have.
func FuzzRead(f *testing.F) {
	f.Add(unit5(false, 0, []byte{1, 'a', 0, 2, 0}), []byte{1, 0x11, 1, 3, 8, 0, 0, 2, 0x34, 0, 0, 0, 0}, []byte("\x00one\x00"))
	f.Add(unit5(true, 0, []byte{1, 'a', 0, 2, 0}), []byte{1, 0x11, 1, 3, 8, 0, 0, 2, 0x34, 0, 0, 0, 0}, []byte("\x00one\x00"))
	f.Fuzz(func(t *testing.T, info, abbrev, str []byte) {
		d := New(Sections{Info: info, Abbrev: abbrev, Str: str, LineStr: str, StrOffsets: str, Addr: str})
		units, _ := d.Units()
		var s Scratch
		for _, u := range units[:min(len(units), 50)] {
			r, err := u.ReaderIn(u.Root, &s)
			if err != nil {
				continue
			}
			var e Entry
			if !r.Next(&e) {
				continue
			}
			for c := range r.Find(&e, TagSet(dwarf.TagVariable)) {
				if c.Off < u.Root || c.Off >= u.End {
					t.Fatalf("an entry at %#x in the unit [%#x, %#x)", c.Off, u.Root, u.End)
				}
				_ = c.Name()
				for _, v := range c.Values {
					_, _ = c.Addr(v)
				}
			}
		}
	})
}
