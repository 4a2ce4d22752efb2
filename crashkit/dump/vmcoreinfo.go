package dump

import (
	"strconv"
	"strings"
)

// maxVMCoreInfo bounds the text in bytes. The kernel reserves a page for it.
const maxVMCoreInfo = 1 << 20

// VMCoreInfo is the text that a kernel prepares for whoever reads its dump:
// lines of KEY=VALUE, such as "SYMBOL(init_uts_ns)=ffffffff82a13a40"
// (Documentation/admin-guide/kdump/vmcoreinfo.rst; kernel/vmcore_info.c, v6.9).
type VMCoreInfo struct {
	Text string // as stored, up to the first NUL

	values map[string]string
}

// ParseVMCoreInfo parses the text of a VMCOREINFO note. Lines without "=" are
// passed over; of equal keys the first counts.
func ParseVMCoreInfo(text []byte) *VMCoreInfo {
	v := &VMCoreInfo{Text: cstring(text), values: make(map[string]string)}
	for line := range strings.Lines(v.Text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if _, dup := v.values[key]; ok && !dup {
			v.values[key] = value
		}
	}
	return v
}

// Get returns the value of a key such as "CRASHTIME" or "SIZE(page)".
func (v *VMCoreInfo) Get(key string) (string, bool) {
	s, ok := v.values[key]
	return s, ok
}

// Uint returns the value of a key as a number in the given base; base 0 goes by
// the value's prefix. It is false if the value is no such number.
func (v *VMCoreInfo) Uint(key string, base int) (uint64, bool) {
	s, ok := v.values[key]
	if !ok {
		return 0, false
	}
	if base == 16 {
		s = strings.TrimPrefix(s, "0x")
	}
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil
}

// Symbol returns the address of a symbol, KASLR offset included: SYMBOL(name).
func (v *VMCoreInfo) Symbol(name string) (uint64, bool) { return v.Uint("SYMBOL("+name+")", 16) }

// Number returns NUMBER(name), which the kernel prints in decimal, or in hex
// with 0x. A hex number above the range of int64 is returned as its two's complement.
func (v *VMCoreInfo) Number(name string) (int64, bool) {
	s, ok := v.values["NUMBER("+name+")"]
	if !ok {
		return 0, false
	}
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 64)
		return int64(n), err == nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// Offset returns the offset in bytes of a member, named as in "page.flags".
func (v *VMCoreInfo) Offset(member string) (uint64, bool) { return v.Uint("OFFSET("+member+")", 10) }

// Size returns the size of a type in bytes.
func (v *VMCoreInfo) Size(typ string) (uint64, bool) { return v.Uint("SIZE("+typ+")", 10) }

// Length returns the number of elements of an array.
func (v *VMCoreInfo) Length(array string) (uint64, bool) { return v.Uint("LENGTH("+array+")", 10) }

// OSRelease returns the kernel release, such as "6.1.0-56-cloud-amd64", or "".
func (v *VMCoreInfo) OSRelease() string { return v.values["OSRELEASE"] }
