package unwind

import (
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// original returns where the function whose return address lies at slot really
// returns to. Tracers put a trampoline into the place of v and remember v
// elsewhere (unwind_recover_ret_addr in arch/x86/include/asm/unwind.h); an
// address that is no trampoline, or of which nothing is remembered, is returned
// as it is.
func (u *Unwinder) original(task, v, slot addr.Virt) addr.Virt {
	if task == 0 || !u.tracers[v] {
		return v
	}
	t := u.p.ObjectAt(task, "struct task_struct")
	if ret, ok := u.graphReturn(t, slot); ok {
		return ret
	}
	for _, h := range []struct{ member, typ, link, frame string }{
		{"rethooks", "struct rethook_node", "llist", "frame"},
		// Until Linux commit f3a112c0c40d ("x86,rethook,kprobes: Replace kretprobe
		// with rethook on x86") (in v5.18).
		{"kretprobe_instances", "struct kretprobe_instance", "llist", "fp"},
	} {
		if ret, ok := u.hookReturn(t, h.member, h.typ, h.link, h.frame, slot); ok {
			return ret
		}
	}
	return v
}

// tracerTrampolines are the functions that tracers let others return to.
var tracerTrampolines = []string{
	"return_to_handler",       // function graph tracer
	"arch_rethook_trampoline", // kretprobes and fprobes, since v5.18
	"__kretprobe_trampoline", "kretprobe_trampoline",
}

// graphReturn looks for slot on the shadow stack of the function graph tracer:
// records of struct ftrace_ret_stack, of different sizes since v6.11, each with
// its retp.
func (u *Unwinder) graphReturn(task ctype.Object, slot addr.Virt) (addr.Virt, bool) {
	const size = 4096 // SHADOW_STACK_SIZE; older ones have 50 records
	at, err := task.Member("ret_stack").Ptr()
	if err != nil || at == 0 {
		return 0, false
	}
	t, err := u.p.Type("struct ftrace_ret_stack")
	if err != nil {
		return 0, false
	}
	retp, err := ctype.OffsetOf(t, "retp")
	if err != nil {
		return 0, false
	}
	ret, err := ctype.OffsetOf(t, "ret")
	if err != nil {
		return 0, false
	}
	for off := retp; off < size; off += 8 {
		v, err := u.p.Uint64(at + addr.Virt(off))
		if err != nil {
			return 0, false
		}
		if addr.Virt(v) != slot {
			continue
		}
		if v, err = u.p.Uint64(at + addr.Virt(off-retp+ret)); err == nil && u.isText(addr.Virt(v)) {
			return addr.Virt(v), true
		}
	}
	return 0, false
}

// maxHooks bounds the number of traced functions that a task is in.
const maxHooks = 4096

// hookReturn looks for slot among the records, linked by a struct llist_node,
// that a member of a task leads to.
func (u *Unwinder) hookReturn(task ctype.Object, member, typ, link, frame string, slot addr.Virt) (addr.Virt, bool) {
	t, err := u.p.Type(typ)
	if err != nil {
		return 0, false
	}
	off, err := ctype.OffsetOf(t, link)
	if err != nil {
		return 0, false
	}
	next, err := task.Member(member).Member("first").Ptr()
	for n := 0; err == nil && next != 0 && n < maxHooks; n++ {
		o := ctype.NewObject(u.p, t, next-addr.Virt(off), fmt.Sprintf("%s[%d]", member, n))
		// A second hook on the same function remembers the trampoline of the first.
		at, err1 := o.Member(frame).Ptr()
		ret, err2 := o.Member("ret_addr").Ptr()
		if err1 == nil && err2 == nil && at == slot && !u.tracers[ret] {
			return ret, true
		}
		next, err = o.Member(link + ".next").Ptr()
	}
	return 0, false
}

// maxOps bounds the number of users of ftrace.
const maxOps = 4096

// ftraceORC returns the unwind data of ip in a trampoline that ftrace has made
// for one of its users: a copy of ftrace_caller or ftrace_regs_caller, whose
// unwind data holds for it too (orc_ftrace_find in arch/x86/kernel/unwind_orc.c).
func (u *Unwinder) ftraceORC(ip addr.Virt) (orcEntry, error) {
	saveRegs, ok := u.p.Types.Enumerator("FTRACE_OPS_FL_SAVE_REGS")
	list, ok2 := u.p.Syms.Lookup("ftrace_ops_list")
	if !ok || !ok2 {
		return orcEntry{}, errNoORC
	}
	next, err := u.p.Uint64(list.Addr)
	for n := 0; err == nil && next != 0 && n < maxOps; n++ {
		ops := u.p.ObjectAt(addr.Virt(next), "struct ftrace_ops")
		start, err1 := ops.Member("trampoline").Ptr()
		size, err2 := ops.Member("trampoline_size").Uint()
		flags, err3 := ops.Member("flags").Uint()
		if err1 == nil && err2 == nil && err3 == nil && start != 0 && ip >= start && uint64(ip-start) < size {
			name := "ftrace_caller"
			if flags&saveRegs != 0 {
				name = "ftrace_regs_caller"
			}
			s, ok := u.p.Syms.Lookup(name)
			if !ok || !u.inImage(s.Addr+ip-start) {
				return orcEntry{}, errNoORC
			}
			return u.table.find(s.Addr + ip - start)
		}
		next, err = ops.Member("next").Uint()
	}
	return orcEntry{}, errNoORC
}
