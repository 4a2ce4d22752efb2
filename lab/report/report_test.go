package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/check"
	"crashlab/crashkit/facts"
	"crashlab/lab/blame"
	"crashlab/lab/ledger"
)

func frame(symbol string, exception bool) facts.Frame {
	return facts.Frame{Symbol: symbol, Offset: 0x10, Size: 0x20, Exception: exception, Reliable: true}
}

func line(symbol string, reliable bool) facts.TraceLine {
	return facts.TraceLine{Symbol: symbol, Offset: 0x10, Size: 0x20, Reliable: reliable}
}

func sample() *ledger.Run {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &ledger.Run{
		ID: "r1", Scenario: "nullderef", Title: "A write through a NULL pointer", Started: start, Took: 5 * time.Second,
		Verdict: ledger.NotMet, Replay: "go tool mage scenario:nullderef", Inspect: "crashkit runs/r1/vmcore",
		Kernel: ledger.Kernel{Spec: "debian:6.1", Release: "6.1.0-56"}, Host: ledger.Host{QEMU: "7.2", Accel: "tcg"},
		Stages: []ledger.Stage{
			{Name: "kernel", State: ledger.Done, Started: start, Took: time.Millisecond, Cached: true, Note: "6.1.0-56"},
			{Name: "boot", State: ledger.Done, Started: start.Add(time.Second), Took: 3 * time.Second},
			{Name: "assert", State: ledger.Failed, Started: start.Add(4 * time.Second), Took: time.Second, Err: "1 of 2 expectations are not met"},
		},
		Expectations: []ledger.Expectation{
			{Expectation: check.Expectation{Name: "kind", Expr: `panic.kind == "null-deref"`, File: "s.yaml", Line: 7}, OK: true},
			{Expectation: check.Expectation{Name: "task", Expr: `panic.task.comm == "sh"`, File: "s.yaml", Line: 9}, Wanted: `panic.task.comm == "sh"`, Found: `panic.task.comm = "trigger"`},
		},
		Failure: &ledger.Failure{Party: blame.Scenario, Doing: "assert", Err: "1 of 2 expectations are not met", Look: []string{"said by the expectation"}},
		Facts: &facts.Facts{
			Kernel: facts.Kernel{Release: "6.1.0-56", Machine: "x86_64", CPUs: 2},
			Panic: facts.Panic{
				Kind: "null-deref", Address: new(uint64(0)), ErrorCode: new(uint64(2)), Access: "write", Mode: "kernel",
				Symbol: "hello_crash", Offset: 0x11, Module: "nullderef", IP: 0xffffffffc0598011,
				Instruction: facts.Instruction{Bytes: []byte{0xc7, 0x02}, Text: "movl $0x2a,(%edx)"},
				Registers:   map[string]uint64{"rdx": 0, "rax": 0x30, "r10": 1, "r9": 2, "rsp": 0xff679344003dba68, "cr2": 0, "x99": 1},
				Frames:      []facts.Frame{frame("hello_crash", true), frame("nullderef_init", false), frame("do_one_initcall", false)},
				KernelTrace: []facts.TraceLine{line("nullderef_init", true), line("stale", false), line("do_one_initcall", true)},
				CrashPath:   []facts.Frame{frame("crash_kexec", false)},
			},
			Tasks:   []facts.Task{{PID: 1, Comm: "agent"}, {PID: 60, Comm: "trigger", Running: true}},
			Modules: []facts.Module{{Name: "nullderef", State: "coming", UsedBy: []string{"a", "b"}}},
		},
		Console:   []string{"before", "[ 1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000", "[ 1.000000] RIP: 0010:hello_crash+0x11/0xffb [nullderef]", "after"},
		Artifacts: []ledger.Artifact{{Path: "vmcore", What: "the memory", Size: 22103261}},
	}
}

func render(t *testing.T, f func(w io.Writer, run *ledger.Run) error, run *ledger.Run) string {
	t.Helper()
	var b strings.Builder
	if err := f(&b, run); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestHTML(t *testing.T) {
	page := render(t, HTML, sample())
	for _, want := range []string{
		"<title>Failed: nullderef · crashlab</title>",
		"1 of 2 expectations met",
		`Whose fault: <span class="who">scenario</span>`,
		"movl $0x2a,(%edx)", "c7 02",
		"A write to <code>0000000000000000</code> in kernel mode. Error code <code>0x2</code>: kernel mode, write, no page there.",
		`<div class="used"><dt>rdx</dt><dd class="zero">0000000000000000</dd></div>`,
		"<small>the dump and the kernel agree</small>",
		`<dt>wanted</dt><dd>panic.task.comm == &#34;sh&#34;</dd><dt>found</dt><dd>panic.task.comm = &#34;trigger&#34;</dd><dt>at</dt><dd>s.yaml:9</dd>`,
		`<span class="title">[ 1.000000] BUG: kernel NULL`, `<span class="key">[ 1.000000] RIP: 0010:hello_crash`,
		`<a href="vmcore">vmcore</a>`, "21.1 MiB",
		"crashkit runs/r1/vmcore", "go tool mage scenario:nullderef",
		`aria-label="boot: 3.0 s"><rect x="200.0" width="600.0"`,
		`<tr class="on"><td class="num">60</td>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(page, "said by the expectation") {
		t.Error("the page says twice what is not met")
	}
}

// TestSelfContained says that the page asks the network for nothing.
func TestSelfContained(t *testing.T) {
	page := render(t, HTML, sample())
	for _, no := range []string{"http://", "https://", "src=", "@import", "url(", "<script", "<link", "<iframe"} {
		if strings.Contains(page, no) {
			t.Errorf("the page has %q", no)
		}
	}
	if !strings.Contains(page, `content="default-src 'none'; style-src 'unsafe-inline'"`) {
		t.Error("the page has no content security policy")
	}
}

// fill puts s into every string of v.
func fill(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		switch v.Type() {
		case reflect.TypeFor[ledger.Verdict](), reflect.TypeFor[ledger.State]():
		default:
			v.SetString(s)
		}
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		fill(v.Elem(), s)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), s)
			}
		}
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		}
		for i := range v.Len() {
			fill(v.Index(i), s)
		}
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf(s), reflect.Zero(v.Type().Elem()))
		v.Set(m)
	}
}

// TestHostile puts what a guest could say to do harm into every string there is.
func TestHostile(t *testing.T) {
	for _, hostile := range []string{
		`"><img src=x onerror=alert(1)><script>alert(1)</script>`,
		"</pre></style></title></details>{{.}}",
		"\x1b[2J\x00\u202eevil\u2066\xff]]>",
		"javascript:alert(1)",
	} {
		for _, edit := range []func(*ledger.Run){func(*ledger.Run) {}, func(r *ledger.Run) { r.Facts = nil }, func(r *ledger.Run) { r.Facts.Verdict = facts.Verdict{} }} {
			run := sample()
			fill(reflect.ValueOf(run).Elem(), hostile)
			run.Failure.Party = blame.Kernel
			edit(run)

			page := render(t, HTML, run)
			for _, no := range []string{"<img", "<script", "\x1b", "\x00", "\u202e", "\u2066", `href="javascript`, "</pre></style>"} {
				if strings.Contains(page, no) {
					t.Errorf("HTML of %q has %q", hostile, no)
				}
			}
			for tag, want := range map[string]int{"</style>": 1, "</title>": 1, "</main>": 1, "</pre>": strings.Count(page, "<pre")} {
				if n := strings.Count(page, tag); n != want {
					t.Errorf("HTML of %q has %d of %s; want %d", hostile, n, tag, want)
				}
			}

			d := xml.NewDecoder(strings.NewReader(render(t, JUnit, run)))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Errorf("JUnit of %q: %v", hostile, err)
					break
				}
			}
			if !json.Valid([]byte(render(t, JSON, run))) {
				t.Errorf("JSON of %q is not valid", hostile)
			}
		}
	}
}

func TestEmptyRun(t *testing.T) {
	for _, run := range []*ledger.Run{{}, {Facts: &facts.Facts{}}, {Failure: &ledger.Failure{}, Verdict: ledger.Broken}} {
		if page := render(t, HTML, run); !strings.Contains(page, "</html>") {
			t.Error("the page of an empty run has no end")
		}
		render(t, JUnit, run)
	}
}

func TestTrace(t *testing.T) {
	for _, tt := range []struct {
		name   string
		frames []facts.Frame
		lines  []facts.TraceLine
		path   []facts.Frame
		want   []string // tone, our symbol, the kernel's
		same   bool
	}{
		{
			"exception", []facts.Frame{frame("f", true), frame("g", false), frame("h", false)},
			[]facts.TraceLine{line("g", true), line("x", false), line("h", true)}, []facts.Frame{frame("die", false)},
			[]string{"path die -", "exception f -", "same g g", "guess - x", "same h h"}, true,
		},
		{
			"arm64 prints the exception too", []facts.Frame{frame("f", true), frame("g", false)},
			[]facts.TraceLine{line("f", true), line("g", true)}, nil,
			[]string{"exception f f", "same g g"}, true,
		},
		{
			"panic", []facts.Frame{frame("f", false), frame("g", false)},
			[]facts.TraceLine{line("dump_stack_lvl", true), line("panic", true), line("f", true), line("g", true)}, []facts.Frame{frame("panic", false)},
			[]string{"path panic -", "path - dump_stack_lvl", "path - panic", "same f f", "same g g"}, true,
		},
		{
			"we miss one", []facts.Frame{frame("f", true), frame("h", false)},
			[]facts.TraceLine{line("g", true), line("h", true)}, nil,
			[]string{"exception f -", "theirs - g", "same h h"}, false,
		},
		{
			"we have one too many", []facts.Frame{frame("f", true), frame("stale", false), frame("g", false)},
			[]facts.TraceLine{line("g", true)}, nil,
			[]string{"exception f -", "ours stale -", "same g g"}, false,
		},
		{"the kernel printed none", []facts.Frame{frame("f", true)}, nil, nil, []string{"exception f -"}, false},
	} {
		v := &view{}
		v.trace(&facts.Panic{Frames: tt.frames, KernelTrace: tt.lines, CrashPath: tt.path})
		var got []string
		for _, r := range v.Trace {
			ours, theirs := "-", "-"
			if r.Frame != nil {
				ours = r.Frame.Symbol
			}
			if r.Line != nil {
				theirs = r.Line.Symbol
			}
			got = append(got, r.Tone+" "+ours+" "+theirs)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || v.SameTrace != tt.same {
			t.Errorf("%s: same = %v; want %v; rows (-want +got):\n%s", tt.name, v.SameTrace, tt.same, diff)
		}
	}
}

func TestRegisters(t *testing.T) {
	var got []string
	for _, r := range newView(sample()).Registers {
		name := r.Name
		if r.Used {
			name += "*"
		}
		got = append(got, name)
	}
	if diff := cmp.Diff([]string{"rsp", "rax", "rdx*", "r9", "r10", "cr2*", "x99"}, got); diff != "" {
		t.Errorf("registers (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{"eax": "rax", "al": "rax", "si": "rsi", "r10d": "r10", "rdx": "rdx", "cs": "cs", "xmm0": "xmm0"} {
		if got := wide(name); got != want {
			t.Errorf("wide(%s) = %s; want %s", name, got, want)
		}
	}
}

func TestJUnit(t *testing.T) {
	broken := sample()
	broken.Verdict, broken.Expectations = ledger.Broken, nil
	broken.Stages = append(broken.Stages[:1], ledger.Stage{Name: "boot", State: ledger.Failed, Took: time.Second, Err: "it hangs"})
	broken.Failure = &ledger.Failure{Party: blame.Kernel, Doing: "boot the guest", Err: "it hangs", Look: []string{"last line"}, Replay: "qemu -x"}

	unknown := sample()
	unknown.Verdict = ledger.Broken
	unknown.Expectations[1] = ledger.Expectation{Expectation: check.Expectation{Name: "task", Expr: "x"}, Err: "no such key"}
	unknown.Failure = &ledger.Failure{Party: blame.Analyzer, Doing: "assert", Err: "1 of 2 could not be evaluated"}
	unknown.Stages = nil

	nowhere := sample()
	nowhere.Stages, nowhere.Expectations = nil, nil
	nowhere.Failure = &ledger.Failure{Party: blame.Usage, Err: "no such scenario"}

	stopped := sample()
	stopped.Verdict, stopped.Failure, stopped.Expectations = ledger.Running, nil, nil
	stopped.Stages = []ledger.Stage{{Name: "boot", State: ledger.Started}}

	// The stage that writes the report has begun and not ended: no error.
	passed := sample()
	passed.Verdict, passed.Failure, passed.Expectations = ledger.Passed, nil, passed.Expectations[:1]
	passed.Stages = []ledger.Stage{{Name: "boot", State: ledger.Done}, {Name: "report", State: ledger.Started}}

	for _, tt := range []struct {
		name             string
		run              *ledger.Run
		failures, errors int
		types            string // of failures and errors in order of their cases
	}{
		{"passed", passed, 0, 0, ""},
		{"failed", sample(), 1, 0, "failure scenario"},
		{"broken", broken, 0, 1, "error kernel"},
		{"unknown", unknown, 0, 1, "error analyzer"},
		{"nowhere", nowhere, 0, 1, "error usage"},
		{"stopped", stopped, 0, 1, "error infrastructure"},
	} {
		out := render(t, JUnit, tt.run)
		var s junitSuite
		if err := xml.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		var types []string
		for _, c := range s.Cases {
			if c.Failure != nil {
				types = append(types, "failure "+c.Failure.Type)
			}
			if c.Error != nil {
				types = append(types, "error "+c.Error.Type)
			}
		}
		if s.Tests != len(s.Cases) || s.Failures != tt.failures || s.Errors != tt.errors || strings.Join(types, ", ") != tt.types {
			t.Errorf("%s: %d tests of %d cases, %d failures, %d errors: %v; want %d, %d: %s", tt.name, s.Tests, len(s.Cases), s.Failures, s.Errors, types, tt.failures, tt.errors, tt.types)
		}
	}

	file := filepath.Join("testdata", "failed.xml")
	got := render(t, JUnit, sample())
	if os.Getenv("LAB_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	run := sample()
	if err := Write(dir, run); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{JUnitFile, HTMLFile, JSONFile}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	data, err := os.ReadFile(filepath.Join(dir, JSONFile))
	if err != nil {
		t.Fatal(err)
	}
	back := new(ledger.Run)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run, back); diff != "" {
		t.Errorf("report.json (-written +read):\n%s", diff)
	}
	if err := Write(filepath.Join(dir, "nowhere"), run); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Write into no folder = %v; want ErrNotExist", err)
	}
}

func TestExcerpt(t *testing.T) {
	console := strings.Repeat("boot\r\n", 50) + "[ 1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000\r\n[ 1.000000] Oops: 0002 [#1] SMP\r\n" + strings.Repeat("capture kernel\r\n", 50)
	got := Excerpt(console)
	if len(got) != 12+2+4 || !strings.Contains(got[12], "BUG:") || strings.Contains(strings.Join(got, ""), "\r") {
		t.Errorf("Excerpt = %d lines, %q", len(got), got)
	}
	if got := Excerpt(strings.Repeat("x\n", 100)); len(got) != 40 {
		t.Errorf("Excerpt of a console without a crash = %d lines; want 40", len(got))
	}
	if got := Excerpt(""); len(got) != 1 {
		t.Errorf("Excerpt(\"\") = %q", got)
	}
}

func TestPageFaultCode(t *testing.T) {
	for code, want := range map[uint64]string{
		0x0: "kernel mode, read, no page there", 0x2: "kernel mode, write, no page there", 0x3: "kernel mode, write, the page forbids it",
		0x11: "kernel mode, instruction fetch, the page forbids it", 0x6: "user mode, write, no page there",
		0xb: "kernel mode, write, the page forbids it, reserved bit set in a page table",
	} {
		if got := pageFaultCode(code); got != want {
			t.Errorf("pageFaultCode(%#x) = %s; want %s", code, got, want)
		}
	}
}
