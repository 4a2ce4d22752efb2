package crashkernel

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const mib, gib = 1 << 20, 1 << 30

func TestParse(t *testing.T) {
	tests := []struct {
		in   string
		want Param
	}{
		{"128M", Param{Size: 128 * mib}},
		{"0x8000000", Param{Size: 128 * mib}},
		{"64M@16M", Param{Size: 64 * mib, Offset: 16 * mib, HasOffset: true}},
		{"64M@0", Param{Size: 64 * mib, HasOffset: true}},
		{"1G,high", Param{Kind: High, Size: gib}},
		{"72M,low", Param{Kind: Low, Size: 72 * mib}},
		{"512M,cma", Param{Kind: CMA, Size: 512 * mib}},
		{"010M", Param{Size: 8 * mib}}, // octal, as memparse has it
		// Documentation/admin-guide/kdump/kdump.rst
		{"512M-2G:64M,2G-:128M", Param{Kind: Ranges, Ranges: []Range{{512 * mib, 2 * gib, 64 * mib}, {2 * gib, Unlimited, 128 * mib}}}},
		{"0-:64M@32M", Param{Kind: Ranges, Ranges: []Range{{0, Unlimited, 64 * mib}}, Offset: 32 * mib, HasOffset: true}},
	}
	for _, tt := range tests {
		got, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, *got); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"": "number", "M": "number", "auto": "number", "128M,middle": "expected", "128M@": "number", "128M@16Mx": "behind the offset",
		"1G-512M:64M": "ends before", "512M:64M": "no - behind", "1G-2G": "expected", "1G-2G:": "number", "1G-2G:64M,": "number",
		"99999999999999999999": "too large", "20E": "too large", "1G-2G:64M;": "behind the size",
	} {
		p, err := Parse(in)
		if err == nil || !strings.Contains(err.Error(), want) || p != nil {
			t.Errorf("Parse(%q) = %v, %v; want an error with %q", in, p, err, want)
		}
	}
}

func TestReserve(t *testing.T) {
	const debian = "2G-64G:256M,64G-:512M"
	tests := []struct {
		param  string
		memory uint64
		want   uint64
	}{
		{"128M", 512 * mib, 128 * mib},
		{debian, 512 * mib, 0},
		{debian, 2*gib - mib, 256 * mib}, // rounded up to 2 GiB
		{debian, 2*gib - 200*mib, 0},
		{debian, 64 * gib, 512 * mib}, // the end is not in the range
		{"0-1G:2G,1G-:64M", 512 * mib, 0},
		{"1G-2G:4G,8G-:512M", 16 * gib, 512 * mib}, // 4G is less than all there is
		{"1G-2G:4G,8G-:512M", 3 * gib, 0},
		{"0-:1M", math.MaxUint64, 0}, // memory is never beyond the end of "unlimited"
	}
	for _, tt := range tests {
		p, err := Parse(tt.param)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Reserve(tt.memory); got != tt.want {
			t.Errorf("%s: Reserve(%d MiB) = %d MiB; want %d", tt.param, tt.memory>>20, got>>20, tt.want>>20)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		param  string
		memory uint64
		want   []string
	}{
		{"128M", 512 * mib, nil},
		{"64M", 512 * mib, []string{"64M is less than the 80M that the capture kernel needs"}},
		{"400M", 512 * mib, []string{"400M is more than half of 512M"}},
		{"1G", 512 * mib, []string{"1G is more than the 512M there are"}},
		{"0", 512 * mib, []string{"0 reserves nothing"}},
		{"2G-:256M", 512 * mib, []string{"2G-:256M reserves nothing with 512M of memory"}},
		{"128M@448M", 512 * mib, []string{"128M from 448M on is beyond the end of 512M"}},
		{"128M@33000K", 512 * mib, []string{"the offset 33000K is not a multiple of 1M"}},
		{"128M,low", 512 * mib, []string{"128M,low alone reserves nothing: it goes with SIZE,high"}},
		{"128M,cma", 512 * mib, []string{"128M,cma alone is no place for a kernel: it goes beside another crashkernel="}},
		{"0-2G:128M,1G-2G:64M", 512 * mib, []string{"the range 1G- is never used: one before it has all of it"}},
	}
	for _, tt := range tests {
		p, err := Parse(tt.param)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, p.Check(tt.memory, 80*mib)); diff != "" {
			t.Errorf("%s: Check(%d MiB) (-want +got):\n%s", tt.param, tt.memory>>20, diff)
		}
	}
}

func TestFromCommandLine(t *testing.T) {
	got, err := FromCommandLine("console=ttyS0 crashkernel=512M,high panic=1 crashkernel=72M,low -- crashkernel=1M")
	if err != nil || len(got) != 2 || got[0].Kind != High || got[1].Size != 72*mib {
		t.Errorf("FromCommandLine = %v, %v; want 512M,high and 72M,low", got, err)
	}
	if got, err := FromCommandLine("crashkernel=much"); err == nil {
		t.Errorf("FromCommandLine = %v, nil; want an error", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"128M", "64M@16M", "1G,high", "512M-2G:64M,2G-:128M@32M", "0x1p-:07k", "18446744073709551615-"} {
		f.Add(s, uint64(gib))
	}
	f.Fuzz(func(t *testing.T, s string, memory uint64) {
		p, err := Parse(s)
		if (err == nil) != (p != nil) {
			t.Fatalf("Parse(%q) = %v, %v; want one of them", s, p, err)
		}
		if err != nil {
			return
		}
		p.Check(memory, memory/2)
		again, err := Parse(p.String())
		if err != nil {
			t.Fatalf("Parse(%q), which is Parse(%q).String(): %v", p.String(), s, err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Errorf("Parse(%q) again (-first +second):\n%s", s, diff)
		}
	})
}
