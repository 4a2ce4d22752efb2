package unwind

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/internal/coretest"
)

// kernelTypes are the types that unwinding asks for, as in v6.1.
func kernelTypes() *coretest.BTF {
	b := &coretest.BTF{}
	char, u32, long := b.Int("char", 1, false), b.Int("unsigned int", 4, false), b.Int("long unsigned int", 8, false)
	word := func(name string) coretest.Field { return coretest.Field{Name: name, Type: long, Bit: 8} }
	bytes := func(name string, n int) coretest.Field {
		return coretest.Field{Name: name, Type: b.Array(char, n), Bit: n}
	}
	list := b.Declare()
	b.SetStruct(list, "list_head", 16, coretest.Field{Name: "next", Type: b.Ptr(list)}, coretest.Field{Name: "prev", Type: b.Ptr(list), Bit: 64})
	llist := b.Layout("llist_node", word("next"))
	first := b.Layout("llist_head", word("first"))
	b.Layout("cpumask", coretest.Field{Name: "bits", Type: b.Array(long, 1), Bit: 8})
	thread := b.Layout("thread_struct", word("sp"))
	b.Layout("task_struct",
		word("stack"), coretest.Field{Name: "on_cpu", Type: u32, Bit: 4}, coretest.Field{Name: "thread", Type: thread, Bit: 8},
		word("ret_stack"), coretest.Field{Name: "rethooks", Type: first, Bit: 8})
	b.Layout("inactive_task_frame", word("r15"), word("r14"), word("r13"), word("r12"), word("bx"), word("bp"), word("ret_addr"))
	b.Layout("irq_stack", bytes("stack", 0x4000))
	estacks := b.Layout("cea_exception_stacks",
		bytes("DF_stack_guard", 0x1000), bytes("DF_stack", 0x2000),
		bytes("NMI_stack_guard", 0x1000), bytes("NMI_stack", 0x2000),
		bytes("VC_stack", 0))
	entry := b.Layout("entry_stack_page", bytes("stack", 0x1000))
	b.Layout("cpu_entry_area",
		bytes("gdt", 0x1000), coretest.Field{Name: "entry_stack_page", Type: entry, Bit: 0x1000},
		coretest.Field{Name: "estacks", Type: estacks, Bit: 0x6000})
	b.Layout("pcpu_hot", word("current_task"), word("hardirq_stack_ptr"))
	b.Layout("ftrace_ret_stack", word("ret"), word("func"), word("calltime"), word("retp"))
	b.Layout("rethook_node", word("rcu"), coretest.Field{Name: "llist", Type: llist, Bit: 8}, word("rethook"), word("ret_addr"), word("frame"))
	b.Layout("ftrace_ops", word("func"), word("next"), word("flags"), word("trampoline"), word("trampoline_size"))
	b.Enum("ftrace_flags", 4, false, coretest.Enumerator{Name: "FTRACE_OPS_FL_SAVE_REGS", Value: 4})
	arch := b.Layout("mod_arch_specific", coretest.Field{Name: "num_orcs", Type: u32, Bit: 4}, word("orc_unwind_ip"), word("orc_unwind"))
	layout := b.Layout("module_layout", word("base"), coretest.Field{Name: "size", Type: u32, Bit: 4})
	kallsyms := b.Layout("mod_kallsyms", word("symtab"), coretest.Field{Name: "num_symtab", Type: u32, Bit: 4}, word("strtab"), word("typetab"))
	b.Layout("module", coretest.Field{Name: "state", Type: u32, Bit: 4}, coretest.Field{Name: "list", Type: list, Bit: 16},
		coretest.Field{Name: "name", Type: b.Array(char, 56), Bit: 56},
		coretest.Field{Name: "core_layout", Type: layout, Bit: 16}, coretest.Field{Name: "init_layout", Type: layout, Bit: 16},
		coretest.Field{Name: "kallsyms", Type: b.Ptr(kallsyms), Bit: 8}, coretest.Field{Name: "arch", Type: arch, Bit: 24})
	return b
}

// The made-up kernel has these functions, 0x100 bytes each, with a call of
// another one that returns at 0x40. Of the entries, most are plain functions.
var kernelFunctions = []struct {
	name string
	orc  orcEntry
}{
	{"plain0", spCall}, {"plain1", spCall}, {"plain2", spCall}, {"plain3", spCall}, {"plain4", spCall},
	{"thread", end},
	{"entry_SYSCALL_64", end},
	{"syscall_entry", orcEntry{spReg: regSP, typ: orcRegsFull}},
	{"exception_entry", orcEntry{spReg: regSP, typ: orcRegsFull, signal: true}},
	{"machine_kexec", orcEntry{spReg: regSP, spOff: 0x30, bpReg: regPrevSP, bpOff: -0x10, typ: orcCall}},
	{"__crash_kexec", orcEntry{}},
	{"ftrace_regs_caller", spCall}, {"ftrace_caller", orcEntry{spReg: regSP, spOff: 0x60, typ: orcCall}},
	{"return_to_handler", orcEntry{}}, {"arch_rethook_trampoline", orcEntry{}},
	{"plain5", spCall}, {"plain6", spCall}, {"plain7", spCall}, {"plain8", spCall}, {"plain9", spCall},
}

const kernelText = coretest.Text + 0x1000 // of the first function

// core is a kernel with two CPUs and one task.
type core struct {
	*coretest.Core
	t      *testing.T
	percpu [2]addr.Virt
	task   addr.Virt
	stack  addr.Virt // the task's
}

func (c *core) fn(name string) addr.Virt {
	c.t.Helper()
	for i, f := range kernelFunctions {
		if f.name == name {
			return kernelText + addr.Virt(0x100*i)
		}
	}
	c.t.Fatalf("no function %s", name)
	return 0
}

// ret returns the address behind the call in a function.
func (c *core) ret(name string) addr.Virt { return c.fn(name) + 0x40 }

func newCore(t *testing.T, orc bool) *core {
	t.Helper()
	c := &core{Core: coretest.New(t, kernelTypes().Bytes()), t: t}
	n := len(kernelFunctions)
	end := kernelText + addr.Virt(0x100*n)
	ips, orcs := c.Data(uint64(4*n)), c.Data(uint64(6*n))
	for i, f := range kernelFunctions {
		v := c.fn(f.name)
		c.Symbol(f.name, 'T', v)
		c.Write(v, []byte(strings.Repeat("\x90", 0x100)))
		c.Write(v+0x3e, []byte{0xff, 0xd0})
		at := ips + addr.Virt(4*i)
		c.Write(at, binary.LittleEndian.AppendUint32(nil, uint32(v-at)))
		raw := encodeV3(f.orc)
		c.Write(orcs+addr.Virt(6*i), raw[:])
	}
	c.Symbol("_etext", 'T', end)
	if orc {
		c.Symbol("__start_orc_unwind_ip", 'R', ips)
		c.Symbol("__stop_orc_unwind_ip", 'R', ips+addr.Virt(4*n))
		c.Symbol("__start_orc_unwind", 'R', orcs)
	}
	c.Uint64(c.Global(t, "__cpu_possible_mask", "struct cpumask"), 3)
	offsets := c.Data(16)
	c.Symbol("__per_cpu_offset", 'R', offsets)
	for cpu := range c.percpu {
		c.percpu[cpu] = c.Alloc(4096)
		c.Uint64(offsets+addr.Virt(8*cpu), uint64(c.percpu[cpu]))
	}
	c.task = c.New(t, "struct task_struct")
	c.stack = c.Alloc(0x5000) &^ 0xfff
	c.Set(t, c.task, "struct task_struct", "stack", c.stack)
	return c
}

func (c *core) regs(v addr.Virt, r arch.Regs) {
	f := &fake{mem: make(map[addr.Virt]byte)}
	f.regs(v, r)
	for a, b := range f.mem {
		c.Write(a, []byte{b})
	}
}

// callOf makes the call that returns to ret one of fn.
func (c *core) callOf(ret, fn addr.Virt) {
	c.Write(ret-5, binary.LittleEndian.AppendUint32([]byte{0xe8}, uint32(fn-ret)))
}

func (c *core) unwinder(running ...Running) *Unwinder {
	c.t.Helper()
	u, err := New(c.Open(c.t), running...)
	if err != nil {
		c.t.Fatal(err)
	}
	return u
}

// summary lists frames as "how symbol+offset".
func summary(frames []Frame) []string {
	var s []string
	for _, f := range frames {
		name := f.Symbol
		if f.Module != "" {
			name = f.Module + ":" + name
		}
		if f.Exception() {
			name = "!" + name
		}
		s = append(s, string(f.How)+" "+name+" "+addr.Virt(f.Offset).String())
	}
	return s
}

func check(t *testing.T, tr Trace, err error, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, summary(tr.Frames)); diff != "" || err != nil {
		t.Errorf("trace error %v (-want +got):\n%s", err, diff)
	}
}

func TestTaskSwitchedOut(t *testing.T) {
	c := newCore(t, true)
	sp := c.stack + 0x3000
	c.Set(t, c.task, "struct task_struct", "thread.sp", sp)
	c.Set(t, sp, "struct inactive_task_frame", "ret_addr", c.ret("plain0"))
	c.Uint64(sp+7*8+0x18, uint64(c.ret("plain1")))
	c.Uint64(sp+7*8+0x38, uint64(c.ret("syscall_entry")))
	c.regs(sp+7*8+0x40, arch.Regs{RIP: 0x401000, CS: userCS})
	tr, err := c.unwinder().Task(c.task)
	check(t, tr, err, "regs plain0 0x40", "orc plain1 0x40", "orc syscall_entry 0x40")
	if tr.User == nil || tr.User.RIP != 0x401000 || tr.Task != c.task {
		t.Errorf("trace of %v with user registers %+v; want of %v with RIP 0x401000", tr.Task, tr.User, c.task)
	}
	want := Frame{
		Index: 1, IP: c.ret("plain1"), SP: sp + 7*8 + 0x20, At: sp + 7*8 + 0x18, Symbol: "plain1", Offset: 0x40, Size: 0x100,
		How: ORC, Stack: "task", Reliable: true,
	}
	if diff := cmp.Diff(want, tr.Frames[1]); diff != "" {
		t.Errorf("frame 1 (-want +got):\n%s", diff)
	}
}

func TestTaskNeverRan(t *testing.T) {
	c := newCore(t, true)
	sp := c.stack + 0x3000
	c.Set(t, c.task, "struct task_struct", "thread.sp", sp)
	c.Set(t, sp, "struct inactive_task_frame", "ret_addr", c.fn("thread"))
	tr, err := c.unwinder().Task(c.task)
	check(t, tr, err, "regs thread 0x0")
}

func TestTaskDead(t *testing.T) {
	c := newCore(t, true)
	c.Set(t, c.task, "struct task_struct", "stack", 0)
	if tr, err := c.unwinder().Task(c.task); !errors.Is(err, ErrNoStack) || len(tr.Frames) != 0 {
		t.Errorf("Task() of one without stack = %v, %v; want %v", summary(tr.Frames), err, ErrNoStack)
	}
}

func TestTaskRunning(t *testing.T) {
	c := newCore(t, true)
	c.Set(t, c.task, "struct task_struct", "on_cpu", 1)
	c.Uint64(c.stack+0x3018, uint64(c.ret("thread")))
	r := arch.Regs{RIP: uint64(c.fn("plain0")), RSP: uint64(c.stack + 0x3000), CS: kernelCS}
	if tr, err := c.unwinder().Task(c.task); err == nil || len(tr.Frames) != 0 {
		t.Errorf("Task() of a running one without registers = %v, %v; want an error", summary(tr.Frames), err)
	}
	u := c.unwinder(Running{Task: c.task, Regs: r})
	tr, err := u.Task(c.task)
	check(t, tr, err, "regs !plain0 0x0", "orc thread 0x40")
	if tr.Frames[0].Index != -1 || tr.Frames[1].Index != 0 {
		t.Errorf("frames are numbered %d and %d; want -1 and 0", tr.Frames[0].Index, tr.Frames[1].Index)
	}
	tr, err = u.Regs(r) // finds the stack by the task that ran there
	check(t, tr, err, "regs !plain0 0x0", "orc thread 0x40")
}

func TestTaskPanicked(t *testing.T) {
	// kexec has saved the registers of the exception; above them is the way from
	// there to machine_kexec, and a word that only looks like its frame.
	c := newCore(t, true)
	hit := arch.Regs{RIP: uint64(c.fn("plain0") + 4), RSP: uint64(c.stack + 0x3000), CS: kernelCS}
	c.Uint64(c.stack+0x3018, uint64(c.ret("thread")))
	c.callOf(c.ret("__crash_kexec"), c.fn("machine_kexec"))
	c.callOf(c.ret("plain1"), c.fn("__crash_kexec"))
	c.Write(c.fn("__crash_kexec"), []byte("\x55\x48\x83\xec\x10")) // push %rbp; sub $0x10,%rsp
	at := c.stack + 0x2000
	c.Uint64(at-0x200, uint64(c.ret("machine_kexec")))
	c.Uint64(at, uint64(c.ret("machine_kexec")))
	c.Uint64(at+8+0x28, uint64(c.ret("__crash_kexec")))
	c.Uint64(at+8+0x30+0x18, uint64(c.ret("plain1")))
	c.Uint64(at+8+0x50+0x18, uint64(c.ret("exception_entry")))
	c.regs(at+8+0x70, hit)
	want := []string{
		"regs machine_kexec 0x40", "orc __crash_kexec 0x40", "prologue plain1 0x40",
		"orc exception_entry 0x40", "orc !plain0 0x4", "orc thread 0x40",
	}
	tr, err := c.unwinder(Running{Task: c.task, Regs: hit, Panic: true}).Task(c.task)
	check(t, tr, err, want...)
	// A CPU that has only been stopped starts at its registers.
	tr, err = c.unwinder(Running{Task: c.task, Regs: hit}).Task(c.task)
	check(t, tr, err, "regs !plain0 0x4", "orc thread 0x40")
	// So does one where the way further in is lost.
	c.Uint64(at+8+0x50+0x18, 0)
	tr, err = c.unwinder(Running{Task: c.task, Regs: hit, Panic: true}).Task(c.task)
	check(t, tr, err, "regs !plain0 0x4", "orc thread 0x40")
}

func TestWithoutORCTables(t *testing.T) {
	for _, kept := range []bool{true, false} {
		c := newCore(t, false)
		sp := c.stack + 0x3000
		c.Set(t, c.task, "struct task_struct", "thread.sp", sp)
		c.Set(t, sp, "struct inactive_task_frame", "ret_addr", c.ret("plain0"))
		c.Set(t, sp, "struct inactive_task_frame", "bp", sp+0x100)
		c.Uint64(sp+0x108, uint64(c.ret("plain1")))
		c.Symbol("schedule", 'T', c.fn("plain9")+0x80)
		if kept {
			c.Write(c.fn("plain9")+0x80, []byte("\xf3\x0f\x1e\xfa\x55\x48\x89\xe5")) // endbr64; push %rbp; mov %rsp,%rbp
		}
		tr, err := c.unwinder().Task(c.task)
		check(t, tr, err, "regs plain0 0x40", "frame-pointer plain1 0x40")
		if got := tr.Frames[1].Reliable; got != kept {
			t.Errorf("with frame pointers kept: %t, a frame is reliable: %t", kept, got)
		}
		// An error says that there were no tables.
		c.Uint64(sp+0x108, 0x1234)
		if tr, err := c.unwinder().Task(c.task); !errors.Is(err, errNoORC) {
			t.Errorf("trace = %v, %v; want an error that says there are no tables", summary(tr.Frames), err)
		}
	}
}

// TestFramePointersPanicked is TestTaskPanicked in a kernel with frame pointers, where
// what machine_kexec called has pushed RBP next, or RBX before it.
func TestFramePointersPanicked(t *testing.T) {
	for _, pushed := range []addr.Virt{8, 16} {
		c := newCore(t, false)
		c.Symbol("schedule", 'T', c.fn("plain9")+0x80)
		c.Write(c.fn("plain9")+0x80, []byte("\x55\x48\x89\xe5")) // push %rbp; mov %rsp,%rbp
		c.Write(c.fn("plain0"), []byte("\x55\x48\x89\xe5"))
		hit := arch.Regs{RIP: uint64(c.fn("plain0") + 4), RSP: uint64(c.stack + 0x3000), RBP: uint64(c.stack + 0x3000), CS: kernelCS}
		c.callOf(c.ret("__crash_kexec"), c.fn("machine_kexec"))
		at := c.stack + 0x2000
		chain := func(bp, next addr.Virt, ret string) {
			c.Uint64(bp, uint64(next))
			c.Uint64(bp+8, uint64(c.ret(ret)))
		}
		c.Uint64(at-0x200, uint64(c.ret("machine_kexec"))) // left over
		c.Uint64(at, uint64(c.ret("machine_kexec")))
		c.Uint64(at-pushed, uint64(at+0x20))
		chain(at+0x20, at+0x60, "__crash_kexec")
		chain(at+0x60, at+0x101, "exception_entry")
		c.regs(at+0x100, hit)
		chain(c.stack+0x3000, 0, "plain1")
		tr, err := c.unwinder(Running{Task: c.task, Regs: hit, Panic: true}).Task(c.task)
		check(t, tr, err, "regs machine_kexec 0x40", "frame-pointer __crash_kexec 0x40", "frame-pointer exception_entry 0x40",
			"frame-pointer !plain0 0x4", "frame-pointer plain1 0x40")
	}
}

func TestStacks(t *testing.T) {
	for _, test := range []struct {
		name, symbol string
		member       addr.Virt // offset in it
		top          addr.Virt // from the end
	}{
		{"since v6.15", "hardirq_stack_ptr", 0, 8},
		{"v6.2", "pcpu_hot", 8, 8},
		{"v5.2", "hardirq_stack_ptr", 0, 0},
		{"before", "irq_stack_ptr", 0, 0},
	} {
		c := newCore(t, true)
		var irq, cea [2]addr.Virt
		c.Symbol(test.symbol, 'A', 0x40)
		c.Symbol("cea_exception_stacks", 'A', 0x80)
		var want []Stack
		for cpu := range irq {
			irq[cpu] = (c.Alloc(0x5000) + 0xfff) &^ 0xfff
			cea[cpu] = (c.Alloc(0xa000) + 0xfff) &^ 0xfff
			c.Uint64(c.percpu[cpu]+0x40+test.member, uint64(irq[cpu]+0x4000-test.top))
			c.Uint64(c.percpu[cpu]+0x80, uint64(cea[cpu]+0x2000))
			want = append(want,
				Stack{"irq", cpu, irq[cpu], irq[cpu] + 0x4000},
				Stack{"entry", cpu, cea[cpu] + 0x1000, cea[cpu] + 0x2000},
				Stack{"DF", cpu, cea[cpu] + 0x3000, cea[cpu] + 0x5000},
				Stack{"NMI", cpu, cea[cpu] + 0x6000, cea[cpu] + 0x8000})
		}
		u := c.unwinder()
		got, err := u.stacks()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: stacks() error %v (-want +got):\n%s", test.name, err, diff)
		}
		for _, s := range want {
			for v, in := range map[addr.Virt]bool{s.Start: true, s.End - 1: true, s.Start - 1: false} {
				if got, ok := u.stackAt(v); (ok && got == s) != in {
					t.Errorf("%s: stackAt(%v) = %v, %t; want it in %v: %t", test.name, v, got, ok, s, in)
				}
			}
		}
	}
	// What is missing is an error that leaves the rest.
	c := newCore(t, true)
	c.Symbol("hardirq_stack_ptr", 'A', 0x40)
	c.Uint64(c.percpu[1]+0x40, uint64(c.Alloc(0x5000)&^0xfff+0x4000))
	if got, err := c.unwinder().stacks(); len(got) != 1 || err == nil {
		t.Errorf("stacks() = %v, %v; want that of CPU 1 and an error", got, err)
	}
}

func TestTaskStackSize(t *testing.T) {
	for _, test := range []struct {
		start, end string
		size       uint64
		want       uint64
	}{
		{"__start_init_stack", "__end_init_stack", 0x8000, 0x8000},
		{"__start_init_task", "__end_init_task", 0x4000, 0x4000},
		{"__start_init_task", "__end_init_task", 0x5000, 0x4000}, // no size of a stack
		{"", "", 0, 0x4000},
	} {
		c := newCore(t, true)
		if test.start != "" {
			v := c.Data(test.size)
			c.Symbol(test.start, 'D', v)
			c.Symbol(test.end, 'D', v+addr.Virt(test.size))
		}
		if got := c.unwinder().size; got != test.want {
			t.Errorf("size of a stack with %s and %s %#x apart = %#x; want %#x", test.start, test.end, test.size, got, test.want)
		}
	}
}

func TestTracers(t *testing.T) {
	c := newCore(t, true)
	sp := c.stack + 0x3000
	c.Set(t, c.task, "struct task_struct", "thread.sp", sp)
	c.Set(t, sp, "struct inactive_task_frame", "ret_addr", c.ret("plain0"))
	graph, hook, twice := sp+7*8+0x18, sp+7*8+0x38, sp+7*8+0x58
	c.Uint64(graph, uint64(c.fn("return_to_handler")))
	c.Uint64(hook, uint64(c.fn("arch_rethook_trampoline")))
	c.Uint64(twice, uint64(c.fn("arch_rethook_trampoline")))

	shadow := c.Alloc(4096)
	c.Set(t, c.task, "struct task_struct", "ret_stack", shadow)
	for i, r := range [][2]addr.Virt{{sp + 0x800, c.ret("plain9")}, {graph, c.ret("plain1")}} {
		v := shadow + addr.Virt(32*i)
		c.Set(t, v, "struct ftrace_ret_stack", "retp", r[0])
		c.Set(t, v, "struct ftrace_ret_stack", "ret", r[1])
	}
	link := c.task + c.Offset(t, "struct task_struct", "rethooks.first")
	for _, r := range [][2]addr.Virt{
		{hook, c.ret("plain2")}, {twice, c.fn("arch_rethook_trampoline")}, {twice, c.ret("thread")},
	} {
		node := c.New(t, "struct rethook_node")
		c.Set(t, node, "struct rethook_node", "frame", r[0])
		c.Set(t, node, "struct rethook_node", "ret_addr", r[1])
		next := node + c.Offset(t, "struct rethook_node", "llist.next")
		c.Uint64(link, uint64(next))
		link = next
	}
	tr, err := c.unwinder().Task(c.task)
	check(t, tr, err, "regs plain0 0x40", "orc plain1 0x40", "orc plain2 0x40", "orc thread 0x40")

	// A list that has become a ring ends.
	c.Uint64(link, uint64(link))
	c.Uint64(twice, uint64(c.fn("return_to_handler")))
	c.Set(t, shadow+32, "struct ftrace_ret_stack", "ret", 0x1234)
	if tr, err := c.unwinder().Task(c.task); err == nil {
		t.Errorf("trace with the return address lost = %v; want an error", summary(tr.Frames))
	}
}

func TestFtraceTrampoline(t *testing.T) {
	const trampoline addr.Virt = 0xffffffffc0100000
	for _, test := range []struct {
		flags int
		skip  addr.Virt // stack of the trampoline
	}{{4, 0x20}, {0, 0x60}} {
		c := newCore(t, true)
		ops, other := c.New(t, "struct ftrace_ops"), c.New(t, "struct ftrace_ops")
		list := c.Data(8)
		c.Symbol("ftrace_ops_list", 'D', list)
		c.Uint64(list, uint64(other))
		c.Set(t, other, "struct ftrace_ops", "next", ops)
		c.Set(t, ops, "struct ftrace_ops", "trampoline", trampoline)
		c.Set(t, ops, "struct ftrace_ops", "trampoline_size", 0x100)
		c.Set(t, ops, "struct ftrace_ops", "flags", test.flags)
		c.Set(t, ops, "struct ftrace_ops", "next", ops) // a ring
		sp := c.stack + 0x3000
		c.Set(t, c.task, "struct task_struct", "thread.sp", sp)
		c.Set(t, sp, "struct inactive_task_frame", "ret_addr", c.ret("plain0"))
		c.Uint64(sp+7*8+0x18, uint64(trampoline+0x40))
		c.Uint64(sp+7*8+0x20+test.skip-8, uint64(c.ret("thread")))
		tr, err := c.unwinder().Task(c.task)
		check(t, tr, err, "regs plain0 0x40", "orc  0x0", "orc thread 0x40")
	}
}

func TestModule(t *testing.T) {
	const base addr.Virt = 0xffffffffc0200000
	c := newCore(t, true)
	m := c.New(t, "struct module")
	head := c.Global(t, "modules", "struct list_head")
	c.List(head, m+c.Offset(t, "struct module", "list"))
	c.Set(t, m, "struct module", "name", "made_up")
	c.Set(t, m, "struct module", "core_layout.base", base)
	c.Set(t, m, "struct module", "core_layout.size", 0x2000)
	c.Write(base, make([]byte, 0x2000))
	c.Write(base+0x3e, []byte{0xff, 0xd0})
	// One function, one variable.
	symtab, strtab, types := c.Alloc(3*24), c.Alloc(32), c.Alloc(3)
	c.Write(strtab, []byte("\x00func\x00var\x00"))
	for i, s := range []struct {
		name  uint32
		value addr.Virt
	}{{}, {1, base}, {6, base + 0x1000}} {
		e := make([]byte, 24)
		binary.LittleEndian.PutUint32(e, s.name)
		binary.LittleEndian.PutUint16(e[6:], uint16(i)) // a section
		binary.LittleEndian.PutUint64(e[8:], uint64(s.value))
		c.Write(symtab+addr.Virt(24*i), e)
	}
	c.Write(types, []byte{0, 't', 'd'})
	k := c.New(t, "struct mod_kallsyms")
	c.Set(t, m, "struct module", "kallsyms", k)
	c.Set(t, k, "struct mod_kallsyms", "symtab", symtab)
	c.Set(t, k, "struct mod_kallsyms", "num_symtab", 3)
	c.Set(t, k, "struct mod_kallsyms", "strtab", strtab)
	c.Set(t, k, "struct mod_kallsyms", "typetab", types)
	ips, orcs := base+0x1800, base+0x1900
	c.Write(ips, binary.LittleEndian.AppendUint32(nil, uint32(base-ips)))
	raw := encodeV3(spCall)
	c.Write(orcs, raw[:])
	c.Set(t, m, "struct module", "arch.num_orcs", 1)
	c.Set(t, m, "struct module", "arch.orc_unwind_ip", ips)
	c.Set(t, m, "struct module", "arch.orc_unwind", orcs)

	sp := c.stack + 0x3000
	c.Uint64(sp+0x18, uint64(c.ret("thread")))
	r := arch.Regs{RIP: uint64(base + 0x40), RSP: uint64(sp), CS: kernelCS}
	tr, err := c.unwinder(Running{Task: c.task, Regs: r}).Task(c.task)
	check(t, tr, err, "regs !made_up:func 0x40", "orc thread 0x40")

	// The module's table says nothing of its data.
	c.Uint64(sp, uint64(base+0x40))
	c.Uint64(sp+0x20, uint64(c.ret("thread")))
	r.RIP = uint64(base + 0x1000)
	tr, err = c.unwinder(Running{Task: c.task, Regs: r}).Task(c.task)
	check(t, tr, err, "regs ! 0x0", "orc made_up:func 0x40", "orc thread 0x40")
}

func TestNewWithoutText(t *testing.T) {
	if _, err := New(coretest.New(t, nil).Open(t)); err == nil {
		t.Error("New() of a kernel without _etext gave no error")
	}
}

func TestStackContains(t *testing.T) {
	s := Stack{Start: 0x1000, End: 0x2000}
	for _, test := range []struct {
		v    addr.Virt
		n    uint64
		want bool
	}{{0x1000, 8, true}, {0x1ff8, 8, true}, {0x1ff9, 8, false}, {0xfff, 1, false}, {0x2000, 0, false}, {^addr.Virt(0), 8, false}} {
		if got := s.Contains(test.v, test.n); got != test.want {
			t.Errorf("Contains(%v, %d) = %t; want %t", test.v, test.n, got, test.want)
		}
	}
	if stacks := []Stack{s}; !slices.Contains(stacks, s) {
		t.Error("stacks are not comparable")
	}
}
