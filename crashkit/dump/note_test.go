package dump_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/dump"
)

func TestParseNotes(t *testing.T) {
	two := []dump.Note{{Name: "CORE", Type: 1, Desc: []byte("12345")}, {Name: "VMCOREINFO", Desc: []byte("A=1\n")}}
	var b []byte
	for _, n := range two {
		b = dump.AppendNote(b, n)
	}
	// As include/uapi/linux/elf.h has it: sizes, type, name and descriptor, padded to 4 bytes.
	const want = "\x05\x00\x00\x00\x05\x00\x00\x00\x01\x00\x00\x00CORE\x00\x00\x00\x0012345\x00\x00\x00" +
		"\x0b\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00VMCOREINFO\x00\x00A=1\n"
	if string(b) != want {
		t.Errorf("AppendNote:\n%q; want\n%q", b, want)
	}
	for _, test := range []struct {
		name string
		b    string
		want []dump.Note
		err  bool
	}{
		{"none", "", nil, false},
		{"two", want, two, false},
		{"zeroes behind", want + strings.Repeat("\x00", 100), two, false},
		{"last padding missing", want[:25], []dump.Note{{Name: "CORE", Type: 1, Desc: []byte("12345")}}, false},
		{"a few bytes behind", want + "\x01\x00\x00", two, false},
		{"descriptor cut", want[:len(want)-1], two[:1], true},
		{"name size huge", "\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := dump.ParseNotes([]byte(test.b))
			if diff := cmp.Diff(test.want, got); diff != "" || (err != nil) != test.err {
				t.Errorf("error %v; notes (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestVMCoreInfo(t *testing.T) {
	v := dump.ParseVMCoreInfo([]byte("OSRELEASE=6.1.0-56-cloud-amd64\r\n" +
		"BUILD-ID=3b43\n" +
		"SYMBOL(init_uts_ns)=ffffffffb61f9b60\n" +
		"OFFSET(page.flags)=8\n" +
		"SIZE(page)=64\n" +
		"LENGTH(node_data)=1024\n" +
		"NUMBER(phys_base)=-589299712\n" +
		"NUMBER(TCR_EL1_T1SZ)=0x10\n" +
		"NUMBER(VMALLOC_START)=0xffff800008000000\n" +
		"NUMBER(bad)=12z\n" +
		"KERNELOFFSET=33600000\n" +
		"no equals sign\n" +
		"SIZE(page)=65\n" +
		"EMPTY=\n" +
		"CRASHTIME=1795212480\x00SIZE(hidden)=1\n"))
	if v.OSRelease() != "6.1.0-56-cloud-amd64" {
		t.Errorf("OSRelease() = %q", v.OSRelease())
	}
	type number struct {
		v  uint64
		ok bool
	}
	signed := func(n int64, ok bool) number { return number{uint64(n), ok} }
	num := func(n uint64, ok bool) number { return number{n, ok} }
	for name, test := range map[string]struct{ got, want number }{
		"Symbol(init_uts_ns)":   {num(v.Symbol("init_uts_ns")), number{0xffffffffb61f9b60, true}},
		"Symbol(none)":          {num(v.Symbol("none")), number{}},
		"Offset(page.flags)":    {num(v.Offset("page.flags")), number{8, true}},
		"Size(page)":            {num(v.Size("page")), number{64, true}},
		"Size(hidden)":          {num(v.Size("hidden")), number{}},
		"Length(node_data)":     {num(v.Length("node_data")), number{1024, true}},
		"Number(phys_base)":     {signed(v.Number("phys_base")), number{1<<64 - 589299712, true}},
		"Number(TCR_EL1_T1SZ)":  {signed(v.Number("TCR_EL1_T1SZ")), number{16, true}},
		"Number(VMALLOC_START)": {signed(v.Number("VMALLOC_START")), number{0xffff800008000000, true}},
		"Number(bad)":           {signed(v.Number("bad")), number{}},
		"Number(none)":          {signed(v.Number("none")), number{}},
		"Uint(KERNELOFFSET)":    {num(v.Uint("KERNELOFFSET", 16)), number{0x33600000, true}},
		"Uint(CRASHTIME)":       {num(v.Uint("CRASHTIME", 10)), number{1795212480, true}},
		"Uint(EMPTY)":           {num(v.Uint("EMPTY", 0)), number{}},
	} {
		if test.got != test.want {
			t.Errorf("%s = %v; want %v", name, test.got, test.want)
		}
	}
	if s, ok := v.Get("EMPTY"); s != "" || !ok {
		t.Errorf("Get(EMPTY) = %q, %v", s, ok)
	}
	if s, ok := v.Get("no equals sign"); ok {
		t.Errorf("Get(no equals sign) = %q, true", s)
	}
}
