package unwind

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
)

// Entries that most tests use.
var (
	spCall = orcEntry{spReg: regSP, spOff: 0x20, typ: orcCall} // a frame of 0x18 bytes and the return address
	end    = orcEntry{typ: orcEnd}
)

const (
	kernelCS = 0x10
	userCS   = 0x33
	sp0      = stackBase + 0x1000
)

func start(ip addr.Virt) state { return state{ip: ip, sp: sp0, how: Regs} }

func TestWalkBases(t *testing.T) {
	// Each case leads from function 0 to function 1, where the stack ends, and
	// says at which stack pointer it gets there.
	regs := &arch.Regs{RAX: uint64(sp0 + 0x100), RDX: uint64(sp0 + 0x200), RDI: uint64(sp0 + 0x300), R10: uint64(sp0 + 0x400), R13: uint64(sp0 + 0x500)}
	const bp = sp0 + 0x80
	for _, test := range []struct {
		name string
		e    orcEntry
		set  func(*fake)
		want addr.Virt
	}{
		{"sp", orcEntry{spReg: regSP, spOff: 0x20, typ: orcCall}, nil, sp0 + 0x20},
		{"bp", orcEntry{spReg: regBP, spOff: 0x10, typ: orcCall}, nil, bp + 0x10},
		{"sp indirect", orcEntry{spReg: regSPIndirect, spOff: 8, typ: orcCall},
			func(f *fake) { f.word(sp0, sp0+0x600) }, sp0 + 0x608},
		{"bp indirect", orcEntry{spReg: regBPIndirect, spOff: -8, typ: orcCall},
			func(f *fake) { f.word(bp-8, sp0+0x700) }, sp0 + 0x700},
		{"ax", orcEntry{spReg: regAX, typ: orcCall}, nil, sp0 + 0x100},
		{"dx", orcEntry{spReg: regDX, typ: orcCall}, nil, sp0 + 0x200},
		{"di", orcEntry{spReg: regDI, typ: orcCall}, nil, sp0 + 0x300},
		{"r10", orcEntry{spReg: regR10, typ: orcCall}, nil, sp0 + 0x400},
		{"r13", orcEntry{spReg: regR13, typ: orcCall}, nil, sp0 + 0x500},
	} {
		f := newFake(test.e, end)
		if test.set != nil {
			test.set(f)
		}
		f.word(test.want-8, in(1))
		got, user, err := f.walk(t, state{ip: in(0), sp: sp0, bp: bp, bpKnown: true, regs: regs, signal: true, how: Regs})
		want := []level{
			{IP: in(0), SP: sp0, How: Regs, Stack: "task", Regs: true},
			{IP: in(1), SP: test.want, How: ORC, Stack: "task"},
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil || user != nil {
			t.Errorf("%s: walk error %v, user %v, (-want +got):\n%s", test.name, err, user, diff)
		}
		// The same, if nothing is known but ip and sp.
		got, _, err = f.walk(t, start(in(0)))
		switch known := test.e.spReg == regSP || test.e.spReg == regSPIndirect; {
		case known && (err != nil || len(got) != 2):
			t.Errorf("%s: walk from ip and sp = %v, %v; want no error", test.name, got, err)
		case !known && (err == nil || !strings.Contains(err.Error(), "not known")):
			t.Errorf("%s: walk from ip and sp, error %v; want one that names the unknown register", test.name, err)
		}
	}
}

func TestWalkBP(t *testing.T) {
	// Function 2 finds its caller by RBP, which 1 has not touched and 0 has saved.
	byBP := orcEntry{spReg: regBP, spOff: 0x10, typ: orcCall}
	for _, test := range []struct {
		name string
		save orcEntry
		bp   addr.Virt // in function 0
		at   addr.Virt // where its caller's is
	}{
		{"saved below the return address", orcEntry{spReg: regSP, spOff: 0x20, bpReg: regPrevSP, bpOff: -0x10, typ: orcCall}, 0, sp0 + 0x10},
		{"saved where RBP points", orcEntry{spReg: regSP, spOff: 0x20, bpReg: regBP, bpOff: 8, typ: orcCall}, sp0, sp0 + 8},
	} {
		f := newFake(test.save, spCall, byBP, end)
		f.word(test.at, sp0+0x200)
		f.word(sp0+0x18, in(1))
		f.word(sp0+0x38, in(2))
		f.word(sp0+0x208, in(3))
		got, _, err := f.walk(t, state{ip: in(0), sp: sp0, bp: test.bp, bpKnown: true, how: Regs})
		want := []level{
			{IP: in(0), SP: sp0, How: Regs, Stack: "task"},
			{IP: in(1), SP: sp0 + 0x20, How: ORC, Stack: "task"},
			{IP: in(2), SP: sp0 + 0x40, How: ORC, Stack: "task"},
			{IP: in(3), SP: sp0 + 0x210, How: ORC, Stack: "task"},
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: walk error %v (-want +got):\n%s", test.name, err, diff)
		}
	}
}

func TestWalkException(t *testing.T) {
	// 0 was called by the entry code 1, which has saved the registers of 2; that
	// was interrupted at its first instruction.
	full := orcEntry{spReg: regSP, spOff: 8, typ: orcRegsFull, signal: true}
	f := newFake(spCall, full, spCall, end)
	f.word(sp0+0x18, in(1))
	f.regs(sp0+0x28, arch.Regs{RIP: uint64(fn(2)), RSP: uint64(sp0 + 0x400), CS: kernelCS, RBP: 7, R13: 13})
	f.word(sp0+0x418, in(3))
	w := newWalker(f, 0, f.own())
	var got []level
	var saved *arch.Regs
	var at addr.Virt
	_, err := w.walk(start(in(0)), func(s state) {
		got = append(got, level{s.ip, s.sp, s.how, w.stackName(s.sp), s.regs != nil, s.partial, s.guessed})
		if s.regs != nil {
			saved, at = s.regs, s.at
		}
	})
	want := []level{
		{IP: in(0), SP: sp0, How: Regs, Stack: "task"},
		{IP: in(1), SP: sp0 + 0x20, How: ORC, Stack: "task"},
		{IP: fn(2), SP: sp0 + 0x400, How: ORC, Stack: "task", Regs: true},
		{IP: in(3), SP: sp0 + 0x420, How: ORC, Stack: "task"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("walk error %v (-want +got):\n%s", err, diff)
	}
	if saved == nil || saved.R13 != 13 || saved.RBP != 7 || at != sp0+0x28 {
		t.Errorf("registers saved at %v: %+v; want those put at %v", at, saved, sp0+0x28)
	}
}

func TestWalkUserMode(t *testing.T) {
	full := orcEntry{spReg: regSP, spOff: 0, typ: orcRegsFull}
	f := newFake(spCall, full)
	f.word(sp0+0x18, in(1))
	f.regs(sp0+0x20, arch.Regs{RIP: 0x401000, RSP: 0x7ffc00000000, CS: userCS})
	got, user, err := f.walk(t, start(in(0)))
	if len(got) != 2 || err != nil {
		t.Errorf("walk = %v, %v; want 2 frames", got, err)
	}
	if user == nil || user.RIP != 0x401000 {
		t.Errorf("walk's user registers = %+v; want RIP 0x401000", user)
	}
	got, user, err = f.walk(t, state{ip: 0x401000, regs: &arch.Regs{CS: userCS}, how: Regs})
	if len(got) != 0 || user == nil || err != nil {
		t.Errorf("walk from user mode = %v, %v, %v; want the registers only", got, user, err)
	}
}

func TestWalkPartialRegs(t *testing.T) {
	// 0 is entry code that interrupted 1, where only five words were saved. 1 is
	// entry code as well, interrupted by it while R10, its base, still held.
	partial := orcEntry{spReg: regSP, spOff: 0, typ: orcRegsPartial, signal: true}
	f := newFake(partial, orcEntry{spReg: regR10, typ: orcCall}, end)
	f.regs(sp0-iretOffset, arch.Regs{RIP: uint64(in(1)), CS: kernelCS, RSP: uint64(sp0 + 0x100), SS: 0x18})
	f.word(sp0+0x1f8, in(2))
	want := []level{
		{IP: in(0), SP: sp0, How: Regs, Stack: "task", Regs: true},
		{IP: in(1), SP: sp0 + 0x100, How: ORC, Stack: "task", Regs: true, Partial: true},
		{IP: in(2), SP: sp0 + 0x200, How: ORC, Stack: "task"},
	}
	s := start(in(0))
	s.regs, s.signal = &arch.Regs{R10: uint64(sp0 + 0x200)}, true
	got, _, err := f.walk(t, s)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("walk error %v (-want +got):\n%s", err, diff)
	}
	// Without the full ones before, R10 is unknown.
	if got, _, err := f.walk(t, start(in(0))); err == nil || len(got) < 2 || !got[1].Partial {
		t.Errorf("walk without full registers = %v, %v; want an error after partial ones", got, err)
	}
}

func TestWalkStackSwitch(t *testing.T) {
	// From an exception stack to the interrupt stack to the task's.
	irq := Stack{Name: "irq", CPU: 1, Start: stackBase + 0x10000, End: stackBase + 0x14000}
	nmi := Stack{Name: "NMI", CPU: 1, Start: stackBase + 0x20000, End: stackBase + 0x22000}
	full := orcEntry{spReg: regSP, typ: orcRegsFull, signal: true}
	indirect := orcEntry{spReg: regSPIndirect, spOff: 8, typ: orcCall}
	f := newFake(full, spCall, indirect, end)
	f.addStack(irq)
	f.addStack(nmi)
	f.regs(nmi.End-arch.RegsSize, arch.Regs{RIP: uint64(in(1)), CS: kernelCS, RSP: uint64(irq.End - 0x40)})
	f.word(irq.End-0x28, in(2))
	f.word(irq.End-0x20, sp0) // the topmost word: there is nothing above
	f.word(sp0, in(3))
	got, _, err := f.walk(t, state{ip: in(0), sp: nmi.End - arch.RegsSize, how: Regs})
	want := []level{
		{IP: in(0), SP: nmi.End - arch.RegsSize, How: Regs, Stack: "NMI"},
		{IP: in(1), SP: irq.End - 0x40, How: ORC, Stack: "irq", Regs: true},
		{IP: in(2), SP: irq.End - 0x20, How: ORC, Stack: "irq"},
		{IP: in(3), SP: sp0 + 8, How: ORC, Stack: "task"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("walk error %v (-want +got):\n%s", err, diff)
	}
	// Back to a stack that was left.
	f.word(irq.End-0x20, nmi.Start+0x100)
	f.word(nmi.Start+0x100, in(3))
	if _, _, err := f.walk(t, state{ip: in(0), sp: nmi.End - arch.RegsSize, how: Regs}); err == nil || !strings.Contains(err.Error(), "left before") {
		t.Errorf("walk back to the NMI stack, error %v; want one that says so", err)
	}
}

func TestWalkReturnAddressBehindFunction(t *testing.T) {
	// The last instruction of function 1 calls one that does not return. What
	// follows in memory is function 2, with another layout.
	f := newFake(spCall, orcEntry{spReg: regSP, spOff: 0x40, typ: orcCall}, orcEntry{spReg: regSP, spOff: 0x200, typ: orcCall}, end)
	f.word(sp0+0x18, fn(2))
	f.word(sp0+0x58, in(3))
	got, _, err := f.walk(t, start(in(0)))
	if err != nil || len(got) != 3 || got[2].IP != in(3) {
		t.Errorf("walk = %v, %v; want 3 frames up to %v", got, err, in(3))
	}
}

func TestWalkBadCall(t *testing.T) {
	for _, ip := range []addr.Virt{0, 0xffffdeadbeef0000, stackBase + 0x10, 8} {
		f := newFake(spCall, end)
		f.word(sp0, in(0))
		f.word(sp0+0x20, in(1))
		regs := &arch.Regs{RIP: uint64(ip), RSP: uint64(sp0), CS: kernelCS}
		got, _, err := f.walk(t, fromRegs(*regs))
		want := []level{
			{IP: ip, SP: sp0, How: Regs, Stack: "task", Regs: true},
			{IP: in(0), SP: sp0 + 8, How: ORC, Stack: "task"},
			{IP: in(1), SP: sp0 + 0x28, How: ORC, Stack: "task"},
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("walk from %v error %v (-want +got):\n%s", ip, err, diff)
		}
	}
}

func TestWalkWithoutORC(t *testing.T) {
	// Generated code keeps a frame pointer. What follows is marked as guessed.
	const jit addr.Virt = 0xffffffffc0000100
	f := newFake(spCall, end)
	f.word(sp0+0x40, sp0+0x300)
	f.word(sp0+0x48, in(0))
	f.word(sp0+0x68, in(1))
	got, _, err := f.walk(t, state{ip: jit, sp: sp0, bp: sp0 + 0x40, bpKnown: true, how: Regs})
	want := []level{
		{IP: jit, SP: sp0, How: Regs, Stack: "task"},
		{IP: in(0), SP: sp0 + 0x50, How: FP, Stack: "task", Guessed: true},
		{IP: in(1), SP: sp0 + 0x70, How: ORC, Stack: "task", Guessed: true},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("walk error %v (-want +got):\n%s", err, diff)
	}
}

func TestWalkFramePointers(t *testing.T) {
	f := newFake(end, end, end)
	f.table, f.fp = nil, true
	f.word(sp0+0x10, sp0+0x101) // of the caller: registers saved at sp0+0x100
	f.word(sp0+0x18, in(1))
	f.regs(sp0+0x100, arch.Regs{RIP: uint64(fn(2)), RSP: uint64(sp0 + 0x300), RBP: 0, CS: kernelCS})
	got, _, err := f.walk(t, state{ip: in(0), sp: sp0, bp: sp0 + 0x10, bpKnown: true, how: Regs})
	want := []level{
		{IP: in(0), SP: sp0, How: Regs, Stack: "task"},
		{IP: in(1), SP: sp0 + 0x20, How: FP, Stack: "task"},
		{IP: fn(2), SP: sp0 + 0x300, How: FP, Stack: "task", Regs: true},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("walk error %v (-want +got):\n%s", err, diff)
	}
}

// TestWalkBeforeFrame begins where code has not yet made RBP its own, or there is no code.
func TestWalkBeforeFrame(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   string    // of function 0, before the exception
		null   bool      // RIP is 0
		pushed addr.Virt // bytes
		first  How
	}{
		{"the first instruction", "", false, 0, Prologue},
		{"push %rbp", "\x55", false, 8, Prologue},
		{"push %rbx; sub $0x10,%rsp", "\x53\x48\x83\xec\x10", false, 0x18, Prologue},
		{"push %rbp; mov %rsp,%rbp", "\x55\x48\x89\xe5", false, 0, FP},
		{"a call of NULL", "", true, 0, Prologue},
	} {
		f := newFake(end, end, end, end)
		f.table, f.fp = nil, true
		f.put(fn(0), []byte(c.code)...)
		bp := sp0 + 0x40
		f.word(bp, 0)
		f.word(bp+8, in(2))
		if c.first == Prologue {
			f.word(sp0+c.pushed, in(1))
		}
		if c.pushed == 8 {
			f.word(sp0, bp)
		}
		regs := arch.Regs{RIP: uint64(fn(0)) + uint64(len(c.code)), RSP: uint64(sp0), RBP: uint64(bp), CS: kernelCS}
		if c.null {
			regs.RIP = 0
		}
		want := []level{{IP: addr.Virt(regs.RIP), SP: sp0, How: Regs, Stack: "task", Regs: true}}
		if c.first == Prologue {
			want = append(want, level{IP: in(1), SP: sp0 + c.pushed + 8, How: Prologue, Stack: "task"})
		}
		want = append(want, level{IP: in(2), SP: bp + 16, How: FP, Stack: "task"})
		got, _, err := f.walk(t, fromRegs(regs))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: walk error %v (-want +got):\n%s", c.name, err, diff)
		}
	}
}

// TestWalkKernelThread ends at the registers that a kernel thread does not have.
func TestWalkKernelThread(t *testing.T) {
	f := newFake(end, end)
	f.table, f.fp = nil, true
	f.word(sp0+0x10, sp0+0x101)
	f.word(sp0+0x18, in(1))
	got, user, err := f.walk(t, state{ip: in(0), sp: sp0, bp: sp0 + 0x10, bpKnown: true, how: Regs})
	if err != nil || user != nil || len(got) != 2 || got[1].IP != in(1) {
		t.Errorf("walk = %v, %v, %v; want 2 frames, the second at %v", got, user, err, in(1))
	}
}

func TestWalkNonStandard(t *testing.T) {
	// Function 1 has no unwind data. It saves two registers and makes room for
	// 0x18 bytes, in which an older return address behind a call of it is left.
	undefined := orcEntry{typ: orcUndefined}
	byBP := orcEntry{spReg: regBP, spOff: 0x10, typ: orcCall}
	build := func(prologue string) *fake {
		f := newFake(spCall, undefined, byBP, end)
		f.put(fn(1), []byte(prologue)...)
		for _, ip := range []addr.Virt{in(2), in(2) + 0x20} {
			rel := uint32(fn(1) - ip)
			f.put(ip-5, 0xe8, byte(rel), byte(rel>>8), byte(rel>>16), byte(rel>>24))
		}
		f.word(sp0+0x18, in(1))
		f.word(sp0+0x28, in(2)+0x20)
		f.word(sp0+0x38, 0x1234)
		f.word(sp0+0x40, sp0+0x200)
		f.word(sp0+0x48, in(2))
		f.word(sp0+0x208, in(3))
		return f
	}
	// call *%rax; push %rbp; push %rbx; sub $0x18,%rsp
	f := build("\xff\xd0\x55\x53\x48\x83\xec\x18")
	got, _, err := f.walk(t, start(in(0)))
	want := []level{
		{IP: in(0), SP: sp0, How: Regs, Stack: "task"},
		{IP: in(1), SP: sp0 + 0x20, How: ORC, Stack: "task"},
		{IP: in(2), SP: sp0 + 0x50, How: Prologue, Stack: "task"},
		{IP: in(3), SP: sp0 + 0x210, How: ORC, Stack: "task"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("walk error %v (-want +got):\n%s", err, diff)
	}

	// A prologue that is not understood: the nearest call counts, RBP is unknown.
	f = build("\xff\xd0\x90")
	f.word(sp0+0x28, 0)
	got, _, err = f.walk(t, start(in(0)))
	want[2].Guessed = true
	if len(got) < 3 || got[2] != want[2] || err == nil {
		t.Errorf("walk = %v, %v; want %v and then an error as RBP is not known", got, err, want[2])
	}

	// No call of the function at all.
	f.word(sp0+0x48, in(3))
	if got, _, err = f.walk(t, start(in(0))); err == nil || len(got) > 2 && !got[2].Guessed {
		t.Errorf("walk = %v, %v; want an error after 2 frames", got, err)
	}
}

func TestWalkTracer(t *testing.T) {
	f := newFake(spCall, spCall, end)
	f.word(sp0+0x18, 0xffffffff81f00000) // a trampoline
	f.tracers[sp0+0x18] = in(1)
	f.word(sp0+0x38, in(2))
	got, _, err := f.walk(t, start(in(0)))
	if err != nil || len(got) != 3 || got[1].IP != in(1) {
		t.Errorf("walk = %v, %v; want 3 frames, the second at %v", got, err, in(1))
	}
}

func TestWalkDamage(t *testing.T) {
	loop := orcEntry{spReg: regSPIndirect, typ: orcCall}
	for _, test := range []struct {
		name    string
		entries []orcEntry
		set     func(*fake)
		want    string // in the error
		reason  addr.Reason
	}{
		{"loop", []orcEntry{loop}, func(f *fake) {
			f.word(sp0, sp0+8)
			f.word(sp0+8, sp0+8)
			f.word(sp0, in(0))
		}, "", 0},
		{"backwards", []orcEntry{{spReg: regSP, spOff: -8, typ: orcCall}}, func(f *fake) { f.word(sp0-16, in(0)) }, "back to", 0},
		{"standing still", []orcEntry{{spReg: regSP, typ: orcCall}}, func(f *fake) { f.word(sp0-8, in(0)) }, "back to", 0},
		{"off the stack", []orcEntry{{spReg: regSP, spOff: 0x7000, typ: orcCall}}, nil, "on no stack", 0},
		{"straddling the end", []orcEntry{{spReg: regSP, spOff: 0x2f80, typ: orcRegsFull}}, nil, "on no stack", 0},
		{"missing page", []orcEntry{spCall}, func(f *fake) { delete(f.mem, sp0+0x18) }, "not mapped", addr.NotMapped},
		{"invalid type", []orcEntry{{spReg: regSP, spOff: 8, typ: orcInvalid}}, nil, "", 0},
		{"undefined", []orcEntry{{typ: orcUndefined}}, nil, "not defined", 0},
		{"return to data", []orcEntry{spCall}, func(f *fake) { f.word(sp0+0x18, stackBase) }, "", 0},
	} {
		f := newFake(test.entries...)
		if test.set != nil {
			test.set(f)
		}
		got, user, err := f.walk(t, start(in(0)))
		if err == nil || user != nil || !strings.Contains(err.Error(), test.want) || addr.ReasonOf(err) != test.reason {
			t.Errorf("%s: walk = %v, %v, %v; want an error with %q", test.name, got, user, err, test.want)
		}
	}
}

func TestWalkScan(t *testing.T) {
	// The unwind data ends at function 1; of the words above, those behind calls
	// are shown and marked.
	f := newFake(spCall, orcEntry{typ: orcUndefined}, spCall)
	f.word(sp0+0x18, in(1))
	f.word(sp0+0x100, in(2))
	f.word(sp0+0x108, fn(2))  // behind no call
	f.word(sp0+0x110, 0x1234) // no code
	f.word(sp0+0x2000, in(0))
	got, _, err := f.walk(t, start(in(0)))
	want := []level{
		{IP: in(0), SP: sp0, How: Regs, Stack: "task"},
		{IP: in(1), SP: sp0 + 0x20, How: ORC, Stack: "task"},
		{IP: in(2), SP: sp0 + 0x108, How: Scan, Stack: "task", Guessed: true},
		{IP: in(0), SP: sp0 + 0x2008, How: Scan, Stack: "task", Guessed: true},
	}
	if diff := cmp.Diff(want, got); diff != "" || err == nil {
		t.Errorf("walk error %v (-want +got):\n%s", err, diff)
	}
}

// TestWalkScanGoesOn finds the word from which the stack can be followed to its end.
func TestWalkScanGoesOn(t *testing.T) {
	f := newFake(spCall, orcEntry{typ: orcUndefined}, spCall, end)
	f.word(sp0+0x18, in(1))
	f.word(sp0+0x60, in(2)) // left over: what would be its caller is none
	f.word(sp0+0x100, in(2))
	f.word(sp0+0x120, in(0))
	f.word(sp0+0x140, in(3))
	f.word(sp0+0x200, in(3))
	got, _, err := f.walk(t, start(in(0)))
	want := []level{
		{IP: in(0), SP: sp0, How: Regs, Stack: "task"},
		{IP: in(1), SP: sp0 + 0x20, How: ORC, Stack: "task"},
		{IP: in(2), SP: sp0 + 0x108, How: Scan, Stack: "task", Guessed: true},
		{IP: in(0), SP: sp0 + 0x128, How: ORC, Stack: "task", Guessed: true},
		{IP: in(3), SP: sp0 + 0x148, How: ORC, Stack: "task", Guessed: true},
	}
	if diff := cmp.Diff(want, got); diff != "" || err == nil {
		t.Errorf("walk error %v (-want +got):\n%s", err, diff)
	}

	// With frame pointers.
	f = newFake(end, end, end)
	f.table, f.fp = nil, true
	f.word(sp0+0xf8, sp0+0x200)
	f.word(sp0+0x100, in(1))
	f.word(sp0+0x208, in(2))
	got, _, err = f.walk(t, start(in(0))) // RBP is not known
	want = []level{
		{IP: in(0), SP: sp0, How: Regs, Stack: "task"},
		{IP: in(1), SP: sp0 + 0x108, How: Scan, Stack: "task", Guessed: true},
		{IP: in(2), SP: sp0 + 0x210, How: FP, Stack: "task", Guessed: true},
	}
	if diff := cmp.Diff(want, got); diff != "" || err == nil {
		t.Errorf("with frame pointers: walk error %v (-want +got):\n%s", err, diff)
	}
}

func TestFollowsCall(t *testing.T) {
	for _, test := range []struct {
		before string
		want   bool
	}{
		{"\x90\x90\xe8\x00\x00\x00\x00", true},
		{"\x90\x90\x90\x90\x90\xff\xd0", true},              // call *%rax
		{"\x90\x90\x90\x90\x41\xff\xd3", true},              // call *%r11
		{"\x90\x90\x90\x90\xff\x53\x08", true},              // call *0x8(%rbx)
		{"\x90\x90\x90\xff\x54\x24\x08", true},              // call *0x8(%rsp)
		{"\x90\xff\x15\x00\x00\x00\x00", true},              // call *0x0(%rip)
		{"\xff\x14\xc5\x00\x00\x00\x82", true},              // call *-0x7e000000(,%rax,8)
		{"\x90\x90\x90\x90\x90\xff\xe0", false},             // jmp *%rax
		{"\x90\x90\xe9\x00\x00\x00\x00", false},             // jmp
		{"\x90\x90\x90\x90\x90\x90\x90", false},             // nop
		{"\xe8", false},                                     // cut off
		{"\x90\x90\x90\x90\x90\x90\x90\x90\x90\xc3", false}, // ret
	} {
		if got := followsCall([]byte(test.before)); got != test.want {
			t.Errorf("followsCall(%x) = %t; want %t", test.before, got, test.want)
		}
	}
}
