package disasm_test

import (
	"encoding/hex"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/disasm"
)

// A listed instruction is one line of objdump's output.
type listed struct {
	pc   addr.Virt
	code []byte
	text string // spelled as gdb does: "0x" before addresses, decimal offsets
	sym  disasm.Symbolizer
}

var (
	branchTo = regexp.MustCompile(`^([a-z, ]+ +)([0-9a-f]+)( <[^>]+>)?$`)
	comment  = regexp.MustCompile(`# ([0-9a-f]+)`)
	location = regexp.MustCompile(`0x([0-9a-f]+) <([^>]+?)(?:\+0x([0-9a-f]+))?>$`)
)

func parseListing(t *testing.T, file string) []listed {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var insts []listed
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 3 {
			t.Fatalf("%s: line %q has %d fields; want 3", file, line, len(f))
		}
		pc := parseHex(t, strings.TrimSuffix(f[0], ":"))
		code, err := hex.DecodeString(strings.ReplaceAll(f[1], " ", ""))
		if err != nil {
			t.Fatalf("%s: line %q: %v", file, line, err)
		}
		in := listed{pc: addr.Virt(pc), code: code}
		in.text = branchTo.ReplaceAllString(f[2], "${1}0x$2$3")
		in.text = comment.ReplaceAllString(in.text, "# 0x$1")
		if m := location.FindStringSubmatch(in.text); m != nil {
			at, name, off := addr.Virt(parseHex(t, m[1])), m[2], uint64(0)
			if m[3] != "" {
				off = parseHex(t, m[3])
				in.text = strings.Replace(in.text, "+0x"+m[3], "+"+strconv.FormatUint(off, 10), 1)
			}
			in.sym = func(v addr.Virt) (string, uint64, bool) { return name, off, v == at }
		}
		insts = append(insts, in)
	}
	return insts
}

func parseHex(t *testing.T, s string) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDecodeLikeObjdump(t *testing.T) {
	for _, file := range []string{"testdata/kernel.txt", "testdata/system.txt"} {
		insts := parseListing(t, file)
		if len(insts) < 100 {
			t.Errorf("%s has %d instructions; want at least 100", file, len(insts))
		}
		for _, want := range insts {
			// What follows must not matter.
			code := append(append([]byte{}, want.code...), 0x65, 0x0f, 0xff, 0xff)
			got, err := disasm.Decode(code, want.pc, want.sym)
			if err != nil {
				t.Errorf("Decode(%x) error: %v", want.code, err)
				continue
			}
			if got.Text != want.text || got.Len != len(want.code) || got.Bad {
				t.Errorf("Decode(%x) = %q, length %d; want %q, length %d", want.code, got.Text, got.Len, want.text, len(want.code))
			}
		}
	}
}

func TestDecodeTarget(t *testing.T) {
	const pc = 0xffffffff81000000
	at := func(v addr.Virt) *addr.Virt { return &v }
	for _, test := range []struct {
		name, code string
		want       *addr.Virt
	}{
		{"call", "\xe8\xfb\xff\xff\xff", at(pc)},
		{"short jump", "\xeb\x10", at(pc + 0x12)},
		{"rip relative", "\x48\x8b\x05\xf9\xff\xff\xff", at(pc)},
		{"rip relative with vex", "\xc5\xf9\x6f\x05\x08\x00\x00\x00", at(pc + 0x10)},
		{"indirect call", "\xff\xd0", nil},
		{"return", "\xc3", nil},
	} {
		got, err := disasm.Decode([]byte(test.code), pc, nil)
		if err != nil {
			t.Errorf("%s: Decode(%x) error: %v", test.name, test.code, err)
		} else if diff := cmp.Diff(test.want, got.Target); diff != "" {
			t.Errorf("%s: Decode(%x).Target (-want +got):\n%s", test.name, test.code, diff)
		}
	}
}

func TestDecodeTruncated(t *testing.T) {
	for _, in := range parseListing(t, "testdata/kernel.txt") {
		for n := range in.code {
			got, err := disasm.Decode(in.code[:n], in.pc, nil)
			// Completed with zeros it may be none, as 0f ba /0 is.
			if !errors.Is(err, disasm.ErrTruncated) && !got.Bad {
				t.Errorf("Decode(%x of %x) = %q, %v; want ErrTruncated", in.code[:n], in.code, got.Text, err)
			}
		}
	}
}

func TestFunc(t *testing.T) {
	code := []byte("\xf3\x0f\x1e\xfa" + "\x0f\x1f\x44\x00\x00" + "\x06" + "\x31\xc0" + "\xe8\x00\x00")
	var got []string
	for _, in := range disasm.Func(code, 0x1000, nil) {
		got = append(got, in.Addr.String()+" "+in.Text)
	}
	want := []string{
		"0x1000 endbr64", "0x1004 nopl   0x0(%rax,%rax,1)", "0x1009 (bad)",
		"0x100a xor    %eax,%eax", "0x100c (bad)", "0x100d (bad)", "0x100e (bad)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Func(%x) (-want +got):\n%s", code, diff)
	}
	if in := disasm.Func(code, 0, nil)[1]; !in.IsFtraceNop() {
		t.Errorf("IsFtraceNop() of %q = false; want true", in.Text)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\xf3\x0f\x1e\xfa"))
	f.Add([]byte("\x62\xf2\x7e\x48\x28\xe9"))
	f.Add([]byte("\x66\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, code []byte) {
		in, err := disasm.Decode(code, 0xffffffff81000000, nil)
		switch {
		case err != nil:
			if !errors.Is(err, disasm.ErrTruncated) {
				t.Errorf("Decode(%x) error: %v; want ErrTruncated", code, err)
			}
		case in.Len < 1 || in.Len > disasm.MaxLen || in.Len > len(code) || len(in.Bytes) != in.Len:
			t.Errorf("Decode(%x) has length %d and %d bytes", code, in.Len, len(in.Bytes))
		case in.Text == "":
			t.Errorf("Decode(%x) has no text", code)
		}
	})
}
