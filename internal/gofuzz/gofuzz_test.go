package gofuzz

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseList(t *testing.T) {
	const out = `?   	crashlab	[no test files]
FuzzA
FuzzB
ok  	crashlab/a	0.004s
ok  	crashlab/b	0.003s
FuzzC
ok  	crashlab/c	0.010s
`
	want := []Target{{"crashlab/a", "FuzzA"}, {"crashlab/a", "FuzzB"}, {"crashlab/c", "FuzzC"}}
	if diff := cmp.Diff(want, parseList(out)); diff != "" {
		t.Errorf("parseList (-want +got):\n%s", diff)
	}
}

// TestRun fuzzes a module with a target that holds and one that fails.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module fuzzed\n\ngo 1.26.0\n",
		"fuzzed_test.go": `package fuzzed

import (
	"os"
	"testing"
)

func FuzzHolds(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {})
}

func FuzzFails(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) { t.Fatalf("planted") })
}

// Its process dies once, as of a machine that is out of memory.
func FuzzKilled(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1 && os.Mkdir("once", 0o777) == nil {
			os.Exit(2)
		}
	})
}

// Its process dies each time.
func FuzzDies(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1 {
			os.Exit(2)
		}
	})
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	targets, err := List(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []Target{{"fuzzed", "FuzzHolds"}, {"fuzzed", "FuzzFails"}, {"fuzzed", "FuzzKilled"}, {"fuzzed", "FuzzDies"}}
	if diff := cmp.Diff(want, targets); diff != "" {
		t.Fatalf("List (-want +got):\n%s", diff)
	}
	var out strings.Builder
	err = Run(t.Context(), dir, targets, time.Second, 2, &out)
	if !errors.Is(err, ErrFound) {
		t.Errorf("Run: %v; want %v", err, ErrFound)
	}
	for _, target := range targets {
		if fails := target.Name == "FuzzFails" || target.Name == "FuzzDies"; strings.Contains(err.Error(), target.String()) != fails {
			t.Errorf("Run: %v; want that of %s: %v", err, target, fails)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "testdata/fuzz/FuzzKilled")); err == nil && len(left) > 0 {
		t.Errorf("the input that passes is left: %v", left)
	}
	for _, s := range []string{"ok    fuzzed.FuzzHolds", "ok    fuzzed.FuzzKilled  ended early", "planted", "FAIL  fuzzed.FuzzFails", "FAIL  fuzzed.FuzzDies"} {
		if !strings.Contains(out.String(), s) {
			t.Errorf("Run printed %q; want %q in it", out.String(), s)
		}
	}
}

func TestEndedByClock(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       bool
	}{
		{"the clock", "fuzz: elapsed: 3s, execs: 40304 (0/sec), new interesting: 104 (total: 108)\n" +
			"--- FAIL: FuzzA (3.20s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\tfuzzed\t3.202s\n", true},
		{"a failure of that name", "--- FAIL: FuzzA (3.20s)\n    --- FAIL: FuzzA (0.00s)\n        a_test.go:3: context deadline exceeded\n    \n" +
			"    Failing input written to testdata/fuzz/FuzzA/0123\nFAIL\n", false},
		{"a panic beside it", "panic: planted\n--- FAIL: FuzzA (3.20s)\n    context deadline exceeded\nFAIL\n", false},
		{"another complaint", "--- FAIL: FuzzA (3.20s)\n    fuzzing process hung or terminated unexpectedly\nFAIL\n", false},
		{"none", "PASS\nok  \tfuzzed\t3.202s\n", false},
	} {
		if got := endedByClock(tt.text); got != tt.want {
			t.Errorf("%s: endedByClock = %v; want %v", tt.name, got, tt.want)
		}
	}
}
