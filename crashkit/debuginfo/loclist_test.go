package debuginfo

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"crashlab/crashkit/internal/die"
)

// list makes a list of locations: bytes, and numbers of 8 bytes.
func list(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case uint64:
			b = binary.LittleEndian.AppendUint64(b, p)
		case string:
			b = append(b, p...)
		}
	}
	return b
}

func TestLocations(t *testing.T) {
	addr := func(i uint64) (uint64, bool) { return 0x9000 + 0x100*i, i < 3 }
	v5 := list(
		4, 0x00, 0x10, 1, "a", // offset_pair: from the unit's base
		6, uint64(0x2000), 4, 0x00, 0x10, 2, "bb", // base_address
		9, 0, 0, // view pair
		7, uint64(0x3000), uint64(0x3008), 1, "c", // start_end
		8, uint64(0x4000), 8, 1, "d", // start_length
		1, 1, 4, 0, 4, 1, "e", // base_addressx
		2, 0, 1, 1, "f", // startx_endx
		3, 2, 4, 1, "g", // startx_length
		0,
	)
	withDefault := list(5, 1, "z", 8, uint64(0x4000), 8, 1, "d", 0)
	v4 := list(
		uint64(0), uint64(0x10), 1, 0, "a",
		^uint64(0), uint64(0x2000), uint64(0), uint64(0x10), 2, 0, "bb",
		uint64(0), uint64(0),
	)
	for _, c := range []struct {
		version int
		b       []byte
		pc      uint64
		want    string
	}{
		{5, v5, 0x1000, "a"},
		{5, v5, 0x100f, "a"},
		{5, v5, 0x1010, ""},
		{5, v5, 0x2001, "bb"},
		{5, v5, 0x3007, "c"},
		{5, v5, 0x3008, ""},
		{5, v5, 0x4007, "d"},
		{5, v5, 0x9100, "e"},
		{5, v5, 0x9104, ""},
		{5, v5, 0x9000, "f"},
		{5, v5, 0x9203, "g"},
		{5, withDefault, 0x4000, "d"},
		{5, withDefault, 0x1, "z"},
		{4, v4, 0x100f, "a"},
		{4, v4, 0x2000, "bb"},
		{4, v4, 0x2010, ""},
	} {
		name := map[int]string{4: "loc", 5: "loclists"}[c.version]
		// Behind something else.
		f := &File{sections: map[string][]byte{name: append([]byte{0xee, 0xee}, c.b...)}}
		got, err := f.locationAt(c.version, 2, c.pc, 0x1000, addr)
		if err != nil || string(got) != c.want {
			t.Errorf("version %d at %#x: %q, %v; want %q", c.version, c.pc, got, err, c.want)
		}
		for cut := range len(c.b) {
			f.sections[name] = c.b[:cut]
			got, err := f.locationAt(c.version, 0, 1, 0x1000, addr)
			if len(got) == 0 && err == nil {
				t.Errorf("version %d cut to %d bytes: no error", c.version, cut)
			}
		}
	}
	f := &File{sections: map[string][]byte{"loclists": list(2, 0, 7, 1, "x", 0)}}
	if _, err := f.locationAt(5, 0, 0x9000, 0, addr); err == nil || !strings.Contains(err.Error(), "not there") {
		t.Errorf("an index beyond .debug_addr: %v; want an error", err)
	}
	f.sections["loclists"] = []byte{8}
	if _, err := f.locationAt(5, 0, 0, 0, addr); !errors.Is(err, die.ErrCut) {
		t.Errorf("a cut list: %v; want %v", err, die.ErrCut)
	}
}
