package debuginfo

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"crashlab/crashkit/internal/fixture"
)

func openVMLinux(t testing.TB) *File {
	t.Helper()
	f, err := Open(fixture.Path(t, fixture.VMLinux))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// What readelf makes of the rules of some functions of a real kernel.
func TestRules(t *testing.T) {
	f := openVMLinux(t)
	b, err := os.ReadFile("testdata/vmlinux.frames")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{"rbx": regRBX, "rbp": regRBP, "r12": 12, "r13": 13, "r14": 14, "r15": 15}
	var columns []string
	rows, end := 0, uint64(0)
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if _, pc, ok := strings.Cut(line, "pc="); ok {
			_, high, _ := strings.Cut(strings.TrimSpace(pc), "..")
			if end, err = strconv.ParseUint(high, 16, 64); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if words[0] == "LOC" {
			columns = words[2:]
			continue
		}
		pc, err := strconv.ParseUint(words[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		r, err := f.rulesAt(pc)
		if err != nil {
			t.Fatalf("rules at %#x: %v", pc, err)
		}
		rows++
		if got := fmt.Sprintf("rsp+%d", r.cfaOff); got != words[1] || r.cfaReg != regRSP || r.byExpr {
			t.Errorf("at %#x the frame is at %s (register %d); want %s", pc, got, r.cfaReg, words[1])
		}
		for i, name := range columns {
			n, ok := names[name]
			if !ok {
				continue
			}
			got := "u"
			if r.regs[n].kind == ruleSaved {
				got = fmt.Sprintf("c%d", r.regs[n].off)
			}
			if got != words[2+i] {
				t.Errorf("at %#x %s is %s; want %s", pc, name, got, words[2+i])
			}
		}
	}
	if rows < 40 {
		t.Errorf("%d rows were compared; want 40 and more", rows)
	}
	if _, err := f.rulesAt(end); err == nil {
		// Another function may follow, with rules of its own.
		if r, _ := f.rulesAt(end); r.cfaOff != 8 {
			t.Errorf("behind the last function the frame is at rsp+%d; want that of a function's start", r.cfaOff)
		}
	}
	if _, err := f.rulesAt(1); !errors.Is(err, ErrNone) {
		t.Errorf("rules at 1: %v; want %v", err, ErrNone)
	}
}

// FuzzRules runs the rules in a damaged .debug_frame.
func FuzzRules(f *testing.F) {
	vmlinux := openVMLinux(f)
	frame := vmlinux.section("frame")
	f.Add(frame[:min(len(frame), 4096)], uint64(0xffffffff81002470))
	f.Fuzz(func(t *testing.T, frame []byte, pc uint64) {
		file := &File{Path: "fuzz", sections: map[string][]byte{"frame": frame}}
		file.fdes = func() ([]fde, error) { return file.readFDEs() }
		all, _ := file.fdes()
		_, _ = file.rulesAt(pc)
		for _, e := range all[:min(len(all), 100)] {
			_, _ = file.rulesAt(e.low)
			_, _ = file.rulesAt(e.high - 1)
		}
	})
}
