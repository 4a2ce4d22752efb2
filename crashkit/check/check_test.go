package check

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The facts of these tests: a little of everything that a struct can hold.
type testFacts struct {
	Panic   testPanic         `json:"panic"`
	Modules []testModule      `json:"modules"`
	Log     string            `json:"log"`
	Regs    map[string]uint64 `json:"regs"`
	Flags   map[int]string    `json:"flags"`
	Took    time.Duration     `json:"took"`
	When    time.Time         `json:"when"`
	Code    []byte            `json:"code"`
	Ratio   float64           `json:"ratio"`
	Extra   any               `json:"extra"`
	Hidden  int               `json:"-"`
	Plain   bool
	embedded
}

type embedded struct {
	Promoted int `json:"promoted"`
}

type testPanic struct {
	Kind    string    `json:"kind"`
	Address *uint64   `json:"address"`
	IP      uint64    `json:"ip,omitempty"`
	Task    *testTask `json:"task"`
	Frames  []string  `json:"frames"`
}

type testTask struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
}

type testModule struct {
	Name string `json:"name"`
	Base uint64 `json:"base"`
}

func facts() *testFacts {
	return &testFacts{
		Panic: testPanic{
			Kind: "null-deref", Address: new(uint64(0)), IP: 0xffffffffc0598011,
			Task:   &testTask{PID: 350, Comm: "insmod"},
			Frames: []string{"hello_crash", "nullderef_init", "do_one_initcall"},
		},
		Modules:  []testModule{{"nullderef", 0xffffffffc0598000}, {"virtio", 0xffffffffc0400000}},
		Log:      "boot\nnullderef: about to write through a NULL pointer\n" + strings.Repeat("a line ü\n", 100),
		Regs:     map[string]uint64{"rdx": 0, "rax": 48},
		Flags:    map[int]string{12: "OOT_MODULE"},
		Took:     3 * time.Second,
		When:     time.Unix(1700000000, 0),
		Code:     []byte{0xc7, 0x02},
		Ratio:    0.5,
		Extra:    map[string]any{"a": []any{1, "two"}},
		Plain:    true,
		embedded: embedded{7},
	}
}

func run(t *testing.T, expr string, f *testFacts) Result {
	t.Helper()
	s, err := Compile([]Expectation{{Name: "x", Expr: expr}}, reflect.TypeFor[testFacts]())
	if err != nil {
		t.Fatalf("Compile(%s) = %v", expr, err)
	}
	return s.Run(t.Context(), f)[0]
}

func TestHolds(t *testing.T) {
	for _, expr := range []string{
		`panic.kind == "null-deref"`,
		`panic.address == 0`,
		`panic.address != None and panic.address < 4096`,
		`panic.ip == 0xffffffffc0598011 and panic.ip > 0x7fffffffffffffff`,
		`panic.ip - modules[0].base == 0x11`,
		`hex(panic.ip) == "0xffffffffc0598011"`,
		`panic.task.comm == "insmod"`,
		`panic.frames[:2] == ["hello_crash", "nullderef_init"]`,
		`panic.frames[-1] == "do_one_initcall"`,
		`[m.name for m in modules if m.base & 0xfff == 0] == ["nullderef", "virtio"]`,
		`any([m.name == "virtio" for m in modules])`,
		`all([m.base >> 32 == 0xffffffff for m in modules])`,
		`"about to write" in log`,
		`not ("KASAN" in log) and "KASAN" not in log`,
		`matches("about to (read|write)", log)`,
		`len([l for l in log.splitlines() if l.startswith("a line")]) == 100`,
		`"rdx" in regs and regs["rdx"] == 0`,
		`[k for k in regs] == ["rax", "rdx"]`,
		`[n for k, n in regs.items()] == [48, 0]`,
		`flags[12] == "OOT_MODULE"`,
		`took == 3000000000`,
		`when == 1700000000`,
		`b"\xc7" in code and code == b"\xc7\x02"`,
		`ratio < 1`,
		`extra["a"][1] == "two"`,
		`Plain`,
		`promoted == 7`,
		`modules[0] == modules[0] and modules[0] != modules[1]`,
		`[i for i, f in enumerate(panic.frames) if f == "nullderef_init"] == [1]`,
		`[m.name for m, f in zip(modules, panic.frames)][0] == "nullderef"`,
		`sorted([m.name for m in modules]) == ["nullderef", "virtio"]`,
		`max([m.base for m in modules]) == modules[0].base`,
		"panic.kind == \"null-deref\"  # the # of a comment\n  and \"#\" not in log\nand panic.address == 0",
		`("x" if panic.address == 0 else "y") == "x"`,
		`panic.task.pid in (350, 351)`,
	} {
		if r := run(t, expr, facts()); !r.OK || r.Err != nil || r.Wanted != "" || r.Found != "" {
			t.Errorf("Run(%s) = OK %v, wanted %q, found %q, error %v; want OK", expr, r.OK, r.Wanted, r.Found, r.Err)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct{ expr, wanted, found string }{
		{`panic.kind == "gpf"`, `panic.kind == "gpf"`, `panic.kind = "null-deref"`},
		{`panic.address == 8`, `panic.address == 8`, `panic.address = 0`},
		{`panic.ip == 0x10`, `panic.ip == 0x10`, `panic.ip = 0xffffffffc0598011`},
		{`panic.ip == modules[0].base`, `panic.ip == modules[0].base`, `panic.ip = 0xffffffffc0598011; modules[0].base = 0xffffffffc0598000`},
		{`panic.address == 0 and (panic.task.comm == "sh" and Plain)`, `panic.task.comm == "sh"`, `panic.task.comm = "insmod"`},
		{`panic.address == 1 or panic.kind == "x"`, `panic.address == 1 or panic.kind == "x"`, `panic.address = 0; panic.kind = "null-deref"`},
		{`not panic.address == 0`, `not panic.address == 0`, `panic.address = 0`},
		{`not Plain`, `not Plain`, `Plain = True`},
		{`"KASAN" in log`, `"KASAN" in log`, `log = "boot\nnullderef: about to write through a NULL pointer\na line ü\na line ü\na line… (1054 bytes)`},
		{`"a" in panic.frames`, `"a" in panic.frames`, `panic.frames = ["hello_crash", "nullderef_init", "do_one_initcall"]`},
		{`panic.frames[:2] == ["hello_crash", "init"]`, `panic.frames[:2] == ["hello_crash", "init"]`, `panic.frames[:2] = ["hello_crash", "nullderef_init"]; [1] is "nullderef_init", not "init"`},
		{`panic.frames[:2] == ["hello_crash"]`, `panic.frames[:2] == ["hello_crash"]`, `panic.frames[:2] = ["hello_crash", "nullderef_init"]; 2 element(s), not 1`},
		{`any([m.name == "ext4" for m in modules])`, `any([m.name == "ext4" for m in modules])`, `m.name = one of ["nullderef", "virtio"]`},
		{`all([m.name == "virtio" for m in modules])`, `all([m.name == "virtio" for m in modules])`, `m = {name: "nullderef", base: 0xffffffffc0598000}`},
		{`matches("^x", panic.kind)`, `matches("^x", panic.kind)`, `panic.kind = "null-deref"`},
		{"panic.kind == # one\n \"null-deref\" and\n took == # two\n 1", `took == 1`, `took = 0xb2d05e00`},
		{"Plain and\r\n took == 1 and\r took == 2", `took == 1`, `took = 0xb2d05e00`},
		{`1 == 2`, `1 == 2`, `1 == 2 = False`},
		{`extra == None`, `extra == None`, `extra = {"a": [1, "two"]}`},
		{`(panic.kind, 1) == ("x", 1)`, `(panic.kind, 1) == ("x", 1)`, `(panic.kind, 1) = ("null-deref", 1)`},
	} {
		r := run(t, tt.expr, facts())
		if r.OK || r.Err != nil {
			t.Errorf("Run(%s) = OK %v, error %v; want a failure", tt.expr, r.OK, r.Err)
		}
		if diff := cmp.Diff([]string{tt.wanted, tt.found}, []string{r.Wanted, r.Found}); diff != "" {
			t.Errorf("Run(%s): wanted, found (-want +got):\n%s", tt.expr, diff)
		}
	}
}

// TestNotEvaluated holds what is no failure of the expectation but of its evaluation.
func TestNotEvaluated(t *testing.T) {
	none := facts()
	none.Panic.Address, none.Panic.Task, none.Panic.Frames = nil, nil, nil
	for _, tt := range []struct{ expr, want string }{
		{`panic.address < 4096`, "NoneType < int not implemented"},
		{`panic.task.comm == "insmod"`, "NoneType has no .comm field"},
		{`panic.frames[0] == "x"`, "out of range"},
		{`regs["rip"] == 0`, `key "rip" not in dict`},
		{`extra["a"]`, "neither True nor False"},
	} {
		r := run(t, tt.expr, none)
		if r.OK || r.Err == nil || !strings.Contains(r.Err.Error(), tt.want) || r.Wanted != "" {
			t.Errorf("Run(%s) = OK %v, error %v; want an error with %q", tt.expr, r.OK, r.Err, tt.want)
		}
	}
	if r := run(t, `panic.address == 0`, none); r.OK || r.Err != nil || r.Found != "panic.address = None" {
		t.Errorf("Run without an address = %+v; want it not met", r)
	}
}

func TestCompileErrors(t *testing.T) {
	at := func(expr string) Expectation {
		return Expectation{Name: "x", Expr: expr, File: "s.yaml", Line: 10, Col: 5}
	}
	for _, tt := range []struct{ expr, want string }{
		{`panic.knd == "a"`, `s.yaml:10:11: expectation "x": panic has no field "knd": did you mean "kind"?`},
		{"panic.kind == \"a\" and\n  panic.addrss == 0", `s.yaml:11:13: expectation "x": panic has no field "addrss": did you mean "address"?`},
		{`panick.kind == "a"`, `s.yaml:10:5: expectation "x": there is no "panick": did you mean "panic"?`},
		{`len(modules) == 0 or [m.nome for m in modules] == []`, `s.yaml:10:29: expectation "x": m has no field "nome": did you mean "name"?`},
		{`modules[0].bse == 0`, `s.yaml:10:16: expectation "x": modules[0] has no field "bse": did you mean "base"?`},
		{`panic.task.qqqqqq == 0`, `s.yaml:10:16: expectation "x": panic.task has no field "qqqqqq": there are comm, pid`},
		{`modules.name == "a"`, `s.yaml:10:13: expectation "x": modules is a list of testModule and has no field "name"`},
		{`panic.address == "0"`, `s.yaml:10:5: expectation "x": panic.address is an int or None, "0" is a string: they are never equal`},
		{`panic.kind == None`, `s.yaml:10:5: expectation "x": panic.kind is a string, None is None: they are never equal`},
		{`panic.frames == "hello"`, `s.yaml:10:5: expectation "x": panic.frames is a list of strings, "hello" is a string: they are never equal`},
		{`7 in log`, `s.yaml:10:5: expectation "x": 7 is an int, log is a string: the one is never in the other`},
		{`1 in panic.frames`, `s.yaml:10:5: expectation "x": 1 is an int, panic.frames is a list of strings: the one is never in the other`},
		{`panic.kind < 3`, `s.yaml:10:5: expectation "x": panic.kind is a string, 3 is an int: they have no order`},
		{`panic.kind`, `s.yaml:10:5: expectation "x": the expectation is a string, neither True nor False`},
		{`regs[1] == 0`, `s.yaml:10:10: expectation "x": the keys of regs are not an int`},
		{`panic.frames["a"] == ""`, `s.yaml:10:18: expectation "x": an index is an int, not a string`},
		{`panic.kind.startwith("n")`, `s.yaml:10:16: expectation "x": panic.kind is a string and has no method "startwith": did you mean "startswith"?`},
		{`panic.kind.startswith == 1`, `s.yaml:10:16: expectation "x": startswith is a method of panic.kind: call it`},
		{`lenn(modules) == 1`, `s.yaml:10:5: expectation "x": there is no function "lenn": did you mean "len"?`},
		{`len(took) == 1`, `s.yaml:10:9: expectation "x": took is an int and has no length`},
		{`len == 1`, `s.yaml:10:5: expectation "x": len is a function: call it`},
		{`matches("(", log)`, "s.yaml:10:13: expectation \"x\": error parsing regexp: missing closing ): `(`"},
		{`matches("a")`, `s.yaml:10:5: expectation "x": matches takes 2 argument(s), not 1`},
		{`[c for c in log] == []`, `s.yaml:10:17: expectation "x": log is a string and cannot be gone through`},
		{`[a for a, b, c in regs.items()] == []`, `s.yaml:10:12: expectation "x": 3 variables for a tuple`},
		{`[1] * 1000000000 == []`, `s.yaml:10:5: expectation "x": * needs numbers: [1] is a list of ints, 1000000000 is an int`},
		{`(lambda: True)()`, `s.yaml:10:5: expectation "x": (lambda: True) is no function`},
		{`sorted(lambda: True) == []`, `s.yaml:10:12: expectation "x": lambda is not allowed in an expectation`},
		{`print("x") == None`, `s.yaml:10:5: expectation "x": there is no function "print": did you mean "int"?`},
		{`panic.frames.append("x") == None`, `s.yaml:10:18: expectation "x": panic.frames is a list of strings and has no method "append": there are index`},
		{`panic.kind =`, `s.yaml:10:17: expectation "x": got '=', want ')'`},
		{`panic.kind = 3`, `s.yaml:10:17: expectation "x": got '=', want ')'`},
		{`Plain) or (Plain`, `s.yaml:10:5: expectation "x": a parenthesis is closed that is not open`},
		{"  ", `s.yaml:10:5: expectation "x": the expression is empty`},
		{`Hidden == 1`, `s.yaml:10:5: expectation "x": there is no "Hidden": there are Plain, code, extra, flags, log, modules, panic, promoted, ratio, regs, took, when`},
	} {
		s, err := Compile([]Expectation{at(tt.expr)}, reflect.TypeFor[*testFacts]())
		if s != nil || err == nil {
			t.Errorf("Compile(%s) = %v, %v; want an error", tt.expr, s, err)
			continue
		}
		if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("Compile(%s) (-want +got):\n%s", tt.expr, diff)
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("Compile(%s) = %T; want one with an *Error", tt.expr, err)
		}
	}
}

func TestCompileReportsAll(t *testing.T) {
	_, err := Compile([]Expectation{{Expr: "aa == 1 and panic.bb == 2"}, {Expr: "True"}, {Expr: "panic.cc == 3"}}, reflect.TypeFor[testFacts]())
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("Compile = %v; want three errors", err)
	}
	if _, err := Compile(nil, reflect.TypeFor[int]()); err == nil {
		t.Error("Compile for an int = nil; want an error")
	}
}

func TestRunStops(t *testing.T) {
	f := facts()
	f.Modules = make([]testModule, 3000)
	const expr = `len([1 for a in modules for b in modules for c in modules]) == 0`
	if r := run(t, expr, f); r.Err == nil || !strings.Contains(r.Err.Error(), "too many steps") {
		t.Errorf("Run of 27e9 steps = %v; want too many steps", r.Err)
	}
	s, err := Compile([]Expectation{{Expr: expr}}, reflect.TypeFor[testFacts]())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stopped by the user"))
	if r := s.Run(ctx, f)[0]; r.Err == nil || !strings.Contains(r.Err.Error(), "stopped by the user") {
		t.Errorf("Run with an ended context = %v; want its cause", r.Err)
	}
	if r := s.Run(t.Context(), testModule{})[0]; r.Err == nil || !strings.Contains(r.Err.Error(), "facts are of type check.testModule") {
		t.Errorf("Run on other facts = %v; want an error", r.Err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`panic.kind == "a"`, `[m.name for m in modules if m.base][0:1] == ["x"]`, "{k: v for k, v in regs.items()} == {}", `all([(a == b) for (a, [b, c]) in []])`, "x)\n(y", "# é\n'é' in log"} {
		f.Add(s)
	}
	f.Add("\r0<0")
	f.Fuzz(func(t *testing.T, expr string) {
		s, err := Compile([]Expectation{{Expr: expr}}, reflect.TypeFor[testFacts]())
		if (s == nil) != (err != nil) {
			t.Fatalf("Compile(%q) = %v, %v", expr, s, err)
		}
		if s == nil {
			return
		}
		r := s.Run(t.Context(), facts())[0]
		if r.OK && (r.Err != nil || r.Found != "") {
			t.Errorf("Run(%q) = %+v", expr, r)
		}
	})
}

func BenchmarkRun(b *testing.B) {
	s, err := Compile([]Expectation{{Expr: `panic.frames[:2] == ["hello_crash", "nullderef_init"] and panic.address == 0`}}, reflect.TypeFor[testFacts]())
	if err != nil {
		b.Fatal(err)
	}
	f := facts()
	b.ReportAllocs()
	for b.Loop() {
		if r := s.Run(b.Context(), f); !r[0].OK {
			b.Fatal(r[0].Found)
		}
	}
}
