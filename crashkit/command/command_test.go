package command

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/internal/fixture"
)

// testCommand has every kind of flag.
var testCommand = &Command{
	Name: "try", Operands: "ADDRESS [COUNT]", Min: 1, Max: 2,
	Flags: []Flag{{"x", "", ""}, {"r", "", ""}, {"16", "", ""}, {"c", "CPU", ""}, {"how", "", ""}, {"from", "ADDRESS", ""}},
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		line     string
		operands []string
		flags    map[string]string
	}{
		{"a", []string{"a"}, map[string]string{}},
		{"-rx a", []string{"a"}, map[string]string{"r": "", "x": ""}},
		{"a -x b -r", []string{"a", "b"}, map[string]string{"r": "", "x": ""}},
		{"-16 a", []string{"a"}, map[string]string{"16": ""}},
		{"-c 3 a", []string{"a"}, map[string]string{"c": "3"}},
		{"-xc3 a", []string{"a"}, map[string]string{"x": "", "c": "3"}},
		{"--how a", []string{"a"}, map[string]string{"how": ""}},
		{"--from=1 a", []string{"a"}, map[string]string{"from": "1"}},
		{"--from 1 a", []string{"a"}, map[string]string{"from": "1"}},
		{"-- -x", []string{"-x"}, map[string]string{}},
		{"- a", []string{"-", "a"}, map[string]string{}},
		{`'a b' "c"`, []string{"a b", "c"}, map[string]string{}},
		{`a''"b"`, []string{"ab"}, map[string]string{}},
	} {
		words, err := splitWords("try " + test.line)
		if err != nil {
			t.Errorf("splitWords(%q): %v", test.line, err)
			continue
		}
		a, err := testCommand.parse(words[1:])
		if err != nil {
			t.Errorf("parse(%q): %v", test.line, err)
			continue
		}
		if diff := cmp.Diff(test.operands, a.Operands); diff != "" {
			t.Errorf("parse(%q) operands (-want +got):\n%s", test.line, diff)
		}
		if diff := cmp.Diff(test.flags, a.flags); diff != "" {
			t.Errorf("parse(%q) flags (-want +got):\n%s", test.line, diff)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":            "missing operand",
		"a b c":       `unexpected operand "c"`,
		"-z a":        `unknown flag "-z"`,
		"-xz a":       `unknown flag "-xz"`,
		"-32 a":       `unknown flag "-32"`,
		"--nothing a": `unknown flag "--nothing"`,
		"--how=1 a":   "--how takes no value",
		"a -c":        "-c CPU needs a value",
		"'a":          "the quote ' is not closed",
	} {
		words, err := splitWords("try " + line)
		if err == nil {
			_, err = testCommand.parse(words[1:])
		}
		var usage *UsageError
		if !errors.As(err, &usage) || usage.Problem != want {
			t.Errorf("parse(%q): %v; want %s", line, err, want)
		}
	}
}

func TestUsage(t *testing.T) {
	want := "try [-x] [-r] [-16] [-c CPU] [--how] [--from ADDRESS] ADDRESS [COUNT]"
	if got := testCommand.Usage(); got != want {
		t.Errorf("Usage() = %q; want %q", got, want)
	}
}

// TestTable holds each command to what its help promises.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, c := range Table() {
		for _, n := range append([]string{c.Name}, c.Aliases...) {
			if names[n] {
				t.Errorf("two commands are called %s", n)
			}
			names[n] = true
		}
		if c.Summary == "" || c.Help == "" || c.run == nil || c.Name != "quit" && len(c.Examples) == 0 {
			t.Errorf("%s lacks summary, help, example or function", c.Name)
		}
		flags := map[string]bool{}
		for _, f := range c.Flags {
			if flags[f.Name] || f.Help == "" {
				t.Errorf("%s: flag %s is there twice or has no help", c.Name, f)
			}
			flags[f.Name] = true
		}
		for _, e := range c.Examples {
			words, err := splitWords(e)
			if err != nil || words[0] != c.Name {
				t.Errorf("%s: example %q: %v", c.Name, e, err)
				continue
			}
			if _, err := c.parse(words[1:]); err != nil {
				t.Errorf("%s: example %q: %v", c.Name, e, err)
			}
		}
	}
}

func TestLookup(t *testing.T) {
	for name, want := range map[string]string{
		"pss":    `unknown command "pss": did you mean ps?`,
		"strcut": `unknown command "strcut": did you mean struct?`,
		"hel":    `unknown command "hel": did you mean help?`,
		"xyzzy":  `unknown command "xyzzy" (try "help")`,
	} {
		if _, err := Lookup(name); err == nil || err.Error() != want {
			t.Errorf("Lookup(%q): %v; want %s", name, err, want)
		}
	}
	for name, want := range map[string]string{"union": "struct", "dmesg": "log", "q": "quit"} {
		if c, err := Lookup(name); err != nil || c.Name != want {
			t.Errorf("Lookup(%q) = %v, %v; want %s", name, c, err, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "acb", 1},
		{"schedule", "shedule", 1}, {"kitten", "sitting", 3},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d; want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for s, want := range map[string]uint64{"10": 10, "0x10": 16, "1f": 31, "0": 0, "ffffffffffffffff": 1<<64 - 1} {
		if got, err := number(s); err != nil || got != want {
			t.Errorf("number(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "-1", "0x", "1ffffffffffffffff"} {
		if got, err := number(s); err == nil {
			t.Errorf("number(%q) = %d; want an error", s, got)
		}
	}
}

func TestAddress(t *testing.T) {
	env := fixtureEnv(t)
	for s, want := range map[string]uint64{
		"schedule":                0xffffffffb50114f0,
		"schedule+16":             0xffffffffb5011500,
		"schedule+0x10":           0xffffffffb5011500,
		"(schedule - 0x10)":       0xffffffffb50114e0,
		"hello_crash":             0xffffffffc0598005,
		"nullderef:hello_crash":   0xffffffffc0598005,
		"virtio:__this_module":    0xffffffffc059f2c0,
		"ffffffffb50114f0":        0xffffffffb50114f0,
		"0xffffffffb50114f0+0x10": 0xffffffffb5011500,
		"10":                      0x10,
	} {
		if got, err := env.address(s); err != nil || uint64(got) != want {
			t.Errorf("address(%q) = %v, %v; want %#x", s, got, err, want)
		}
	}
	for s, want := range map[string]string{
		"shedule":            "no such symbol: shedule; similar: schedule",
		"schedule+":          `offset in "schedule+": "" is not a number`,
		"virtio:hello_crash": "no such symbol: virtio:hello_crash",
		"t_next":             "6 symbols are called t_next: give one's address (ffffffffb47a0790, ffffffffb47ae3c0, ffffffffb47bc240, ffffffffb47bf0f0, ffffffffb47c5930, ffffffffb49f5880)",
	} {
		if got, err := env.address(s); err == nil || err.Error() != want {
			t.Errorf("address(%q) = %v, %v; want %s", s, got, err, want)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for s, want := range map[string][]int{"0": {0}, "0,2-4": {0, 2, 3, 4}, "1-1": {1}} {
		got, err := parseCPUs(s)
		if err != nil {
			t.Errorf("parseCPUs(%q): %v", s, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parseCPUs(%q) (-want +got):\n%s", s, diff)
		}
	}
	for _, s := range []string{"", "a", "2-1", "-1", "0-99999999", "1,,2"} {
		if got, err := parseCPUs(s); err == nil {
			t.Errorf("parseCPUs(%q) = %v; want an error", s, got)
		}
	}
}

func TestUptime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		5 * time.Second:                "00:00:05",
		25*time.Hour + 61*time.Second:  "1 day, 01:01:01",
		49*time.Hour + 900*time.Second: "2 days, 01:15:00",
	} {
		if got := uptime(d); got != want {
			t.Errorf("uptime(%v) = %q; want %q", d, got, want)
		}
	}
}

func TestMemorySize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 bytes", 512 << 10: "512 KB", 511<<20 + 1<<19: "511.5 MB", 8 << 30: "8 GB", 1<<30 + 1<<29: "1.5 GB",
	} {
		if got := memorySize(n); got != want {
			t.Errorf("memorySize(%d) = %q; want %q", n, got, want)
		}
	}
}

// TestSafe makes sure that text of a dump cannot command a terminal.
func TestSafe(t *testing.T) {
	for s, want := range map[string]string{
		"plain\ttext":  "plain\ttext",
		"\x1b[2Jx":     `\x1b[2Jx`,
		"a\rb\x7f\x00": `a\x0db\x7f\x00`,
		"grün":         "grün",
		"\xff\xc3":     `\xff\xc3`,
		"\u009b31m":    `\xc2\x9b31m`,
		"two\nlines":   `two\x0alines`,
	} {
		if got := safe(s); got != want {
			t.Errorf("safe(%q) = %q; want %q", s, got, want)
		}
	}
}

// TestPrintable does the same for what goes out as a whole.
func TestPrintable(t *testing.T) {
	if got, want := Printable("a\tb\n\x1b]0;x\a"), "a\tb\n"+`\x1b]0;x\x07`; got != want {
		t.Errorf("Printable() = %q; want %q", got, want)
	}
}

func TestEscape(t *testing.T) {
	if got, want := escape([]byte("a\"\\\n\x00\x1b\xff'"), '"'), `a\"\\\n\000\033\377'`; got != want {
		t.Errorf("escape() = %s; want %s", got, want)
	}
	if got, want := quoteArray([]byte("ab\x00\x00")), `"ab\000"`; got != want {
		t.Errorf("quoteArray() = %s; want %s", got, want)
	}
}

func TestComplete(t *testing.T) {
	env := fixtureEnv(t)
	for line, want := range map[string][]string{
		"st":                 {"struct"},
		"help qu":            {"quit"},
		"sym hello_":         {"hello_crash"},
		"dis -r hello_":      {"hello_crash"},
		"struct page_counte": {"page_counter"},
		"mod null":           {"nullderef"},
		"sym ":               nil,
		"nothing x":          nil,
	} {
		_, got := env.Complete(line)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Complete(%q) (-want +got):\n%s", line, diff)
		}
	}
}

// TestJSON makes sure that every example's answer is an object that says what
// was asked.
func TestJSON(t *testing.T) {
	env := fixtureEnv(t)
	for _, c := range Table() {
		for _, e := range c.Examples {
			a := Run(t.Context(), env, e)
			b, err := json.Marshal(a)
			if err != nil {
				t.Errorf("%s: %v", e, err)
				continue
			}
			var got struct {
				Command string
				Args    []string
				Result  map[string]any
				Partial bool
				Error   string
			}
			if err := json.Unmarshal(b, &got); err != nil {
				t.Errorf("%s: %v", e, err)
			}
			if got.Command != c.Name || len(got.Result) == 0 || got.Partial || got.Error != "" || got.Args == nil {
				t.Errorf("%s: %.200s", e, b)
			}
		}
	}
}

// TestPartial reads from a page that the dump has into one that it has not.
func TestPartial(t *testing.T) {
	a := Run(t.Context(), fixtureEnv(t), "rd ff679344003dbff0 4")
	if a.Err == nil || !a.Partial || !strings.Contains(a.Error, "0xff679344003dc000: not mapped") {
		t.Fatalf("Partial = %v, Error = %q; want true and the address past the stack", a.Partial, a.Error)
	}
	// The end of the stack: RSP and SS of user mode, as the console has them.
	want := "ff679344003dbff0:  00007ffc04fe2998 000000000000002b   .)......+.......\n"
	if got := text(t, a.Result); got != want {
		t.Errorf("rd = %q; want %q", got, want)
	}
}

// TestFaultInStruct shows a struct whose later part is not in memory.
func TestFaultInStruct(t *testing.T) {
	a := Run(t.Context(), fixtureEnv(t), "struct list_head ff679344003dbff8")
	if a.Err == nil || !a.Partial {
		t.Fatalf("Partial = %v, Err = %v; want a partial answer", a.Partial, a.Err)
	}
	if got := text(t, a.Result); !strings.Contains(got, "prev = <not mapped>") {
		t.Errorf("struct = %q; want prev = <not mapped>", got)
	}
	b, err := json.Marshal(a.Result)
	if err != nil || !strings.Contains(string(b), `"prev":null`) {
		t.Errorf("JSON is %s, %v; want prev null", b, err)
	}
}

func FuzzRun(f *testing.F) {
	for _, c := range Table() {
		for _, e := range c.Examples {
			f.Add(e)
		}
	}
	f.Add("rd -e ffffffffffffffff 0")
	f.Add("struct -l list_head.prev module.list modules 3")
	p := fixture.Open(f)
	f.Fuzz(func(t *testing.T, line string) {
		if strings.TrimSpace(line) == "" {
			return
		}
		a := Run(t.Context(), NewEnv(p, "vmcore"), line)
		if a.Err == nil && a.Result == nil {
			t.Errorf("%q: neither answer nor error", line)
		}
		if a.Result != nil {
			text(t, a.Result)
			if _, err := json.Marshal(a); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}
