package oops

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGolden checks the headers of testdata/*.txt: what Last finds in the log that
// follows the blank line. LAB_UPDATE=1 rewrites the headers.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("Glob = %v, %v; want files", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, log, ok := strings.Cut(string(data), "\n\n")
			if !ok || !strings.HasPrefix(want, "REPORTS: ") {
				want, log = "", string(data)
			}
			got := headers(log)
			if os.Getenv("LAB_UPDATE") != "" {
				if err := os.WriteFile(file, []byte(got+"\n\n"+log), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Last(%s) (-want +got):\n%s", file, diff)
			}
			// The carriage returns of a serial console make no difference,
			// nor does a host's time stamp.
			if crlf := headers(strings.ReplaceAll(log, "\n", "\r\n")); crlf != got {
				t.Errorf("with CRLF: %s", cmp.Diff(got, crlf))
			}
			stamped := "[   12.345s] " + strings.ReplaceAll(log, "\n", "\n[   12.345s] ")
			if h := headers(stamped); h != got && !strings.HasPrefix(log, "[  3.") {
				t.Errorf("with a host's time stamp: %s", cmp.Diff(got, h))
			}
			// The lines of a report alone say the same as the whole log.
			if r, ok := Last(log); ok && !strings.Contains(log, "][ T") {
				lines := strings.SplitAfter(log, "\n")
				alone := headers(strings.Join(lines[r.Start:r.End], ""))
				if drop(alone) != drop(got) {
					t.Errorf("parsed alone: %s", cmp.Diff(drop(got), drop(alone)))
				}
			}
		})
	}
}

// drop takes away the headers that depend on the rest of the log.
func drop(h string) string {
	_, rest, _ := strings.Cut(h, "\n")
	_, rest, _ = strings.Cut(rest, "\n")
	return rest
}

// headers renders what Parse and Last find.
func headers(log string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "REPORTS: %d\n", len(Parse(log)))
	r, ok := Last(log)
	if !ok {
		return strings.TrimSuffix(b.String(), "\n")
	}
	put := func(name string, value any) {
		switch v := value.(type) {
		case string:
			if v != "" {
				fmt.Fprintf(&b, "%s: %s\n", name, v)
			}
		case *int:
			if v != nil {
				fmt.Fprintf(&b, "%s: %d\n", name, *v)
			}
		case *uint64:
			if v != nil {
				fmt.Fprintf(&b, "%s: %#x\n", name, *v)
			}
		}
	}
	fmt.Fprintf(&b, "LINES: [%d, %d)\n", r.Start, r.End)
	put("KIND", r.Kind)
	put("TITLE", r.Title)
	if r.Number > 0 {
		put("NUMBER", &r.Number)
	}
	put("ADDRESS", r.Address)
	put("ACCESS", r.Access)
	put("MODE", r.Mode)
	put("ERROR", r.ErrorCode)
	put("CPU", r.CPU)
	put("PID", r.PID)
	put("UID", r.UID)
	put("COMM", r.Comm)
	put("TAINTED", r.Tainted)
	put("RELEASE", r.Release)
	if r.PC != nil {
		put("PC", place(*r.PC))
	}
	for _, name := range []string{"rax", "r9", "rsp", "rflags", "cr2", "cs", "ss", "kernel_gs_base", "sp", "x0", "pstate"} {
		if v, ok := r.Registers[name]; ok {
			put("REG "+name, &v)
		}
	}
	put("MODULES", strings.Join(r.Modules, " "))
	put("PANIC", r.PanicMessage)
	for _, l := range r.CallTrace {
		put("TRACE", line(l))
	}
	for _, l := range r.PanicTrace {
		put("PANICTRACE", line(l))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func place(l Location) string {
	if l.Symbol == "" {
		return fmt.Sprintf("%#x", l.Addr)
	}
	s := fmt.Sprintf("%s+%#x/%#x", l.Symbol, l.Offset, l.Size)
	if l.Module != "" {
		s += " in " + l.Module
	}
	return s
}

func line(l TraceLine) string {
	s := place(l.Location)
	if l.Exception {
		s = "RIP: " + s
	}
	if !l.Reliable {
		s = "? " + s
	}
	if l.Stack != "" {
		s = "<" + l.Stack + "> " + s
	}
	return s
}

func TestStrip(t *testing.T) {
	for _, tt := range []struct{ line, text, caller string }{
		{"[    5.720661] BUG: x\r\n", "BUG: x", ""},
		{"[  5.9s] [    5.720661]  <TASK>", "<TASK>", ""},
		{"<4>[    5.720661][  T350] BUG: x", "BUG: x", "T350"},
		{"[    5.720661][    C1]  ? f+0x1/0x2", "? f+0x1/0x2", "C1"},
		{"Jun 09 23:00:08 frame kernel: kernel BUG at lib/list_debug.c:65!", "kernel BUG at lib/list_debug.c:65!", ""},
		{"2026-06-09T23:00:08.123456+02:00 frame kernel: [    5.720661] BUG: x", "BUG: x", ""},
		{"[Fri Feb 24 17:34:53 2023] BUG: x", "BUG: x", ""},
		{"[  +0,001186] BUG: x", "BUG: x", ""},
		{" do_idle+0x1/0x2", "do_idle+0x1/0x2", ""},
		{"[nullderef] x", "[nullderef] x", ""},
		{"", "", ""},
	} {
		if text, caller := strip(tt.line); text != tt.text || caller != tt.caller {
			t.Errorf("strip(%q) = %q, %q; want %q, %q", tt.line, text, caller, tt.text, tt.caller)
		}
	}
}

func TestCause(t *testing.T) {
	// A later WARN does not hide the panic, and of two oopses the last counts.
	const log = `WARNING: CPU: 1 PID: 2 at a.c:1 a+0x1/0x2
---[ end trace 0000000000000000 ]---
BUG: kernel NULL pointer dereference, address: 0000000000000000
Oops: 0000 [#1] SMP
---[ end trace 0000000000000000 ]---
BUG: unable to handle page fault for address: ffff800000000000
Oops: 0002 [#2] SMP
---[ end trace 0000000000000000 ]---
WARNING: CPU: 1 PID: 3 at a.c:1 a+0x1/0x2
`
	var kinds []string
	reports := Parse(log)
	for _, r := range reports {
		kinds = append(kinds, r.Kind)
	}
	if diff := cmp.Diff([]string{Warn, NullDeref, PageFault, Warn}, kinds); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	if r, ok := Cause(reports); !ok || r.Kind != PageFault || r.Number != 2 {
		t.Errorf("Cause = %s #%d, %v; want the second oops", r.Kind, r.Number, ok)
	}
	reports = Parse(log + "Kernel panic - not syncing: sysrq triggered crash\n" + log)
	if r, _ := Cause(reports); r.Kind != SysRq {
		t.Errorf("Cause = %s; want the panic", r.Kind)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := strings.Count(text, "\n") + 1
		last := -1
		for _, r := range Parse(text) {
			if r.Kind == "" || r.Title == "" || r.Start < last || r.Start >= r.End || r.End > n {
				t.Errorf("report %q of kind %q at [%d, %d) of %d lines, after %d", r.Title, r.Kind, r.Start, r.End, n, last)
			}
			last = r.Start
		}
	})
}
