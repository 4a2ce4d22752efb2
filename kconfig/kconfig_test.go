package kconfig

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Lines as scripts/kconfig wrote them, but for the names in the middle.
const sample = `#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.1.192 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"
CONFIG_GCC_VERSION=120200
CONFIG_LOCALVERSION=""
CONFIG_64BIT=y
# CONFIG_WERROR is not set
CONFIG_VIRTIO_BLK=m
CONFIG_QUOTED="a \"b\" \\ c"
CONFIG_PHYSICAL_START=0x1000000
CONFIG_PAGE_OFFSET=0xffff888000000000
CONFIG_PANIC_TIMEOUT=-1
CONFIG_TWICE=y
# CONFIG_TWICE is not set
CONFIG_NAT64=y

# end of General setup
`

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestState(t *testing.T) {
	c := parse(t, sample)
	for name, want := range map[string]Tristate{
		"64BIT": Yes, "WERROR": No, "VIRTIO_BLK": Module, "TWICE": No, "NAT64": Yes,
		"ABSENT": No, "GCC_VERSION": No, "LOCALVERSION": No,
	} {
		if got := c.State(name); got != want {
			t.Errorf("State(%q) = %v; want %v", name, got, want)
		}
	}
}

func TestStr(t *testing.T) {
	c := parse(t, sample)
	for name, want := range map[string]string{
		"CC_VERSION_TEXT": "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", "LOCALVERSION": "", "QUOTED": `a "b" \ c`,
	} {
		if got, err := c.Str(name); got != want || err != nil {
			t.Errorf("Str(%q) = %q, %v; want %q, nil", name, got, err, want)
		}
	}
	for _, name := range []string{"ABSENT", "WERROR"} {
		if got, err := c.Str(name); !errors.Is(err, ErrNotSet) {
			t.Errorf("Str(%q) = %q, %v; want ErrNotSet", name, got, err)
		}
	}
	if got, err := c.Str("64BIT"); err == nil || errors.Is(err, ErrNotSet) {
		t.Errorf("Str(64BIT) = %q, %v; want an error that it is no string", got, err)
	}
}

func TestInt(t *testing.T) {
	c := parse(t, sample)
	for name, want := range map[string]int64{
		"GCC_VERSION": 120200, "PHYSICAL_START": 0x1000000, "PANIC_TIMEOUT": -1, "PAGE_OFFSET": -0x778000000000,
	} {
		if got, err := c.Int(name); got != want || err != nil {
			t.Errorf("Int(%q) = %#x, %v; want %#x, nil", name, got, err, want)
		}
	}
	if got, err := c.Int("ABSENT"); !errors.Is(err, ErrNotSet) {
		t.Errorf("Int(ABSENT) = %d, %v; want ErrNotSet", got, err)
	}
	if got, err := c.Int("64BIT"); err == nil {
		t.Errorf("Int(64BIT) = %d, nil; want an error", got)
	}
}

func TestParseErrors(t *testing.T) {
	for _, line := range []string{
		"CONFIG_A", "CONFIG_A=", "CONFIG_=y", "A=y", "CONFIG_A B=y", `CONFIG_A="b`, `CONFIG_A="b\"`, `CONFIG_A="b"c"`,
		"# CONFIG_A-B is not set", "<html>",
	} {
		_, err := Parse(strings.NewReader("CONFIG_X=y\n" + line + "\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "2: ") {
			t.Errorf("Parse(%q) = %v; want an error in line 2", line, err)
		}
	}
	if _, err := Parse(strings.NewReader("CONFIG_A=" + strings.Repeat("1", 2<<20))); err == nil {
		t.Error("Parse of an endless line = nil; want an error")
	}
}

func TestMissing(t *testing.T) {
	needs := []Need{
		{AnyOf: []string{"PROC_VMCORE"}, BuiltIn: true, Without: "the capture kernel has no /proc/vmcore"},
		{AnyOf: []string{"UNWINDER_ORC", "FRAME_POINTER"}, BuiltIn: true, Without: "backtraces are guesses"},
		{AnyOf: []string{"VIRTIO_BLK"}, Without: "the guest has no disk"},
	}
	tests := []struct {
		name, config string
		want         []string
	}{
		{"all there", "CONFIG_PROC_VMCORE=y\nCONFIG_FRAME_POINTER=y\nCONFIG_VIRTIO_BLK=m\n", nil},
		{"nothing", "", []string{
			"CONFIG_PROC_VMCORE is not set: without it the capture kernel has no /proc/vmcore",
			"neither CONFIG_UNWINDER_ORC nor CONFIG_FRAME_POINTER is set: without it backtraces are guesses",
			"CONFIG_VIRTIO_BLK is not set: without it the guest has no disk",
		}},
		{"module where built-in is needed", "CONFIG_PROC_VMCORE=m\nCONFIG_UNWINDER_ORC=y\nCONFIG_VIRTIO_BLK=y\n", []string{
			"CONFIG_PROC_VMCORE is a module and not built in: without it the capture kernel has no /proc/vmcore",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, l := range parse(t, tt.config).Missing(needs) {
				got = append(got, l.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Missing (-want +got):\n%s", diff)
			}
		})
	}
}

// A kernel that lacks one option of the table loses exactly that.
func TestLabNeeds(t *testing.T) {
	needs := LabNeeds()
	for i, n := range needs {
		if len(n.AnyOf) == 0 || n.Without == "" {
			t.Fatalf("need %d = %+v; want options and what is lost", i, n)
		}
		var text strings.Builder
		for j, m := range needs {
			if j != i {
				text.WriteString("CONFIG_" + m.AnyOf[0] + "=y\n")
			}
		}
		losses := parse(t, text.String()).Missing(needs)
		if len(losses) != 1 || losses[0].AnyOf[0] != n.AnyOf[0] {
			t.Errorf("without %v: Missing = %v; want that one", n.AnyOf, losses)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(strings.NewReader(text))
		if (err == nil) != (c != nil) {
			t.Fatalf("Parse = %v, %v; want one of them", c, err)
		}
		if c != nil {
			for name := range c.values {
				_, _ = c.Int(name)
				_, _ = c.Str(name)
			}
		}
	})
}
