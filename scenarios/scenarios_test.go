package scenarios

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/facts"
)

func TestBuiltin(t *testing.T) {
	list, err := List()
	if err != nil {
		t.Fatalf("List = %v", err)
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
		if s.Dir != "" || s.File != filepath.Join("scenarios", s.Name, "scenario.yaml") {
			t.Errorf("%s: Dir = %q, File = %q; want a built-in scenario's", s.Name, s.Dir, s.File)
		}
		if s.Summary == "" || !strings.HasPrefix(s.Lesson, "# "+s.Title+"\n") {
			t.Errorf("%s: the lesson is not titled %q, or there is no summary", s.Name, s.Title)
		}
		if n := strings.Count(s.Lesson, "<details><summary>Answer</summary>"); n != 3 {
			t.Errorf("%s: the lesson has %d answers; want 3", s.Name, n)
		}
	}
	if diff := cmp.Diff([]string{
		"badcall", "bug", "hungtask", "irqcrash", "nmi", "nmicrash", "nullderef", "softlockup", "stackoverflow", "sysrq", "warn",
	}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// crashes returns the facts of a real crash for each built-in scenario.
func crashes(t *testing.T) map[string]*facts.Facts {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*facts.Facts)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f := new(facts.Facts)
		if err := json.Unmarshal(b, f); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = f
	}
	return all
}

// TestTellsApart says that each scenario passes on its own crash and fails on each other's.
func TestTellsApart(t *testing.T) {
	list, err := List()
	if err != nil {
		t.Fatal(err)
	}
	all := crashes(t)
	for _, s := range list {
		if all[s.Name] == nil {
			t.Errorf("testdata has no facts of %s", s.Name)
		}
		for name, f := range all {
			failed := 0
			for _, r := range s.Expect.Run(t.Context(), f) {
				if !r.OK {
					failed++
				}
				if name == s.Name && !r.OK {
					t.Errorf("%s: %q: wanted %s, found %s, error %v", name, r.Name, r.Wanted, r.Found, r.Err)
				}
			}
			if name != s.Name && failed < 5 {
				t.Errorf("scenario %s on the crash of %s: %d expectations fail; want at least 5", s.Name, name, failed)
			}
		}
	}
}

const minimal = `name: mine
title: Mine
kernel: debian:6.1
trigger: sysrq
expect:
- name: one
  expr: panic.kind == "sysrq"
`

func TestParse(t *testing.T) {
	s, err := parse("f.yaml", []byte(minimal+"timeouts: {boot: 90s}\nguest: {cpus: 4}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Guest{MemoryMiB: 512, CPUs: 4, Crashkernel: "128M"}); s.Guest != want || s.Boot != 90*time.Second {
		t.Errorf("Guest = %+v, Boot = %v; want %+v, 90s", s.Guest, s.Boot, want)
	}
}

func TestParseErrors(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(minimal, old, new, 1) }
	for _, tt := range []struct{ yaml, want string }{
		{"", "f.yaml: the file is empty"},
		{edit("kernel:", "kernal:"), "line 3: field kernal not found"},
		{edit("expr: panic.kind", "expr: panic.knd"), `f.yaml:7:15: expectation "one": panic has no field "knd": did you mean "kind"?`},
		{edit(`panic.kind == "sysrq"`, `'panic.knd == "x"'`), `f.yaml:7:16: expectation "one": panic has no field "knd"`},
		{edit(`panic.kind == "sysrq"`, "|\n\n    dump.partial or\n    panic.knd == 0"), `f.yaml:10:11: expectation "one": panic has no field "knd"`},
		{edit(`panic.kind == "sysrq"`, "[1]"), `line 7: expectation "one" has no expr, or it is not a string`},
		{edit(`expr: panic.kind == "sysrq"`, ""), `expectation "one" has no expr`},
		{edit(`panic.kind == "sysrq"`, ""), `expectation "one": the expression is empty`},
		{edit(`panic.kind == "sysrq"`, "|"), `expectation "one": the expression is empty`},
		{edit("trigger: sysrq", "trigger: button"), `trigger is "button"`},
		{edit("trigger: sysrq", "trigger: module"), `module is ""`},
		{edit("trigger: sysrq", "trigger: sysrq\nmodule: x"), "takes no module"},
		{edit("trigger: sysrq", "trigger: module\nmodule: ../x"), `module is "../x"`},
		{edit("name: mine", "name: My Own"), `name is "My Own"`},
		{edit("title: Mine", "title:"), "title is not one line"},
		{edit("kernel: debian:6.1", "kernel:"), "kernel is not given"},
		{minimal + "sysctl: {kernel/panic: 1}", `sysctl "kernel/panic" is no name`},
		{minimal + "sysctl: {kernel...panic: 1}", `sysctl "kernel...panic" is no name`},
		{minimal + "guest: {memory_mib: 64}", "guest.memory_mib is 64"},
		{minimal + "guest: {cpus: 0}", "guest.cpus is 0"},
		{minimal + "guest: {crashkernel: lots}", `guest.crashkernel is "lots"`},
		{minimal + "timeouts: {boot: -1s}", "timeouts.boot is negative"},
		{minimal + "timeouts: {boot: soon}", "cannot unmarshal"},
		{minimal + "- {name: one, expr: 'True'}", `name "one" twice`},
		{minimal + "- {expr: 'True'}", "expect[1] has no name"},
		{edit("- name: one\n  expr: panic.kind == \"sysrq\"\n", ""), "expect is empty"},
		{minimal + "---\nname: two\n", "more than one document"},
		{minimal + strings.Repeat("#", maxFile), "too many"},
	} {
		s, err := parse("f.yaml", []byte(tt.yaml))
		if s != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("parse(%s) = %v, %v; want an error with %q", tt.yaml[:min(len(tt.yaml), 400)], s, err, tt.want)
		}
	}
}

func TestUsersOwn(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "scenario.yaml"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("mine", minimal)
	write("sysrq", strings.Replace(minimal, "name: mine", "name: sysrq", 1))
	write("other", minimal)

	s, err := Load("mine", dir)
	if err != nil || s.Dir != filepath.Join(dir, "mine") || s.Lesson != "" {
		t.Errorf("Load(mine) = %+v, %v; want the one of %s", s, err, dir)
	}
	if s, err = Load("sysrq", dir); err != nil || s.Title != "Mine" {
		t.Errorf("Load(sysrq) = %+v, %v; want the user's own", s, err)
	}
	if s, err = Load("nullderef", dir); err != nil || s.Dir != "" {
		t.Errorf("Load(nullderef) = %+v, %v; want the built-in one", s, err)
	}
	if _, err = Load("other", dir); err == nil || !strings.Contains(err.Error(), `the name is "mine" but the folder's is "other"`) {
		t.Errorf("Load(other) = %v; want an error about the name", err)
	}
	_, err = Load("nosuch", dir)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there are badcall, bug, hungtask, irqcrash, mine, nmi, nmicrash, nullderef, other, softlockup, stackoverflow, sysrq, warn") {
		t.Errorf("Load(nosuch) = %v; want those there are", err)
	}
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	list, err := List(dir)
	if len(list) != len(all)+1 || err == nil {
		t.Errorf("List = %d scenarios, %v; want one more than the %d built-in ones, and an error about other", len(list), err, len(all))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	for _, name := range []string{"hungtask", "nullderef", "sysrq"} {
		data, err := builtin.ReadFile(name + "/scenario.yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parse("f.yaml", data); (s == nil) != (err != nil) {
			t.Errorf("parse = %v, %v", s, err)
		}
	})
}
