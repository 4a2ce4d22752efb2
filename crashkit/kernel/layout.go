package kernel

import (
	"fmt"
	"strings"

	"crashlab/crashkit/ctype"
)

// Need is a member of a C type that the analyzer reads.
type Need struct {
	// Type is as in "struct task_struct"; "enumerator" for one of any enum.
	Type string
	// Any are the names that the member has had, newest first; one of them is
	// enough. A name may be a path through nested structs.
	Any []string
	// Why names the answers that are missing without it.
	Why string
	// Optional members are absent from some kernels, by version or
	// configuration, and then nothing is missing.
	Optional bool
}

// Find looks for what is needed in a kernel's types: at which bytes of its type a member
// begins and how many it has, or how many the type has; of an enumerator, the value. The
// error wraps ctype.ErrNotFound or ctype.ErrNoMember.
func (n Need) Find(types *ctype.Set) (at, size uint64, err error) {
	if n.Type == "enumerator" {
		for _, name := range n.Any {
			if v, ok := types.Enumerator(name); ok {
				return v, 0, nil
			}
		}
		return 0, 0, fmt.Errorf("enumerator %s: %w", strings.Join(n.Any, " or "), ctype.ErrNotFound)
	}
	t, err := types.Lookup(n.Type)
	if err != nil {
		return 0, 0, err
	}
	if len(n.Any) == 0 {
		return 0, t.Size(), nil
	}
	o := ctype.NewObject(nil, t, 0, n.Type).Member(n.Any...)
	if err := o.Err(); err != nil {
		return 0, 0, err
	}
	return uint64(o.Addr()), o.Type().Size(), nil
}

// Layout returns all that package crashkit, and those above it, know of C types
// by name. A test holds the code to it, and it to the types of real kernels.
func Layout() []Need {
	list := func(why, typ string, members ...string) []Need {
		var needs []Need
		for _, m := range members {
			needs = append(needs, Need{Type: typ, Any: strings.Split(m, "|"), Why: why})
		}
		return needs
	}
	optional := func(why, typ string, members ...string) []Need {
		needs := list(why, typ, members...)
		for i := range needs {
			needs[i].Optional = true
		}
		return needs
	}
	var all []Need
	for _, needs := range [][]Need{
		// include/linux/types.h, list.h, cpumask.h
		list("lists", "struct list_head", "next"),
		list("lists", "struct hlist_head", "first"),
		list("counters", "atomic_t", "counter"),
		list("counters", "atomic_long_t", "counter"),
		list("CPUs", "struct cpumask", "bits"),

		// include/linux/sched.h
		list("tasks", "struct task_struct",
			"pid", "tgid", "comm", "stack", "mm", "cred", "__state|state", "exit_state", "flags", "real_parent", "tasks",
			"thread_node", "signal", "pid_links", "on_cpu", "thread.sp"),
		// One of the two with SMP; neither without.
		optional("the CPU of a task", "struct task_struct", "thread_info.cpu", "cpu"),
		list("threads", "struct signal_struct", "thread_head"),
		list("users", "struct cred", "uid.val"),
		list("current and idle tasks", "struct rq", "curr", "idle"),

		// include/linux/pid.h, pid_namespace.h, xarray.h
		list("tasks by PID", "struct pid", "tasks"),
		list("tasks by PID", "enumerator", "PIDTYPE_PID"),
		list("tasks by PID", "struct pid_namespace", "idr.idr_rt"),
		list("tasks by PID", "struct xarray", "xa_head"),
		list("tasks by PID", "struct xa_node", "shift", "slots"),

		// include/linux/mm_types.h, percpu_counter.h
		list("memory of tasks", "struct mm_struct", "total_vm", "rss_stat"),
		list("memory of tasks", "enumerator", "MM_FILEPAGES", "MM_ANONPAGES", "MM_SHMEMPAGES"),
		optional("memory of tasks", "struct mm_rss_stat", "count"), // until v6.1
		list("memory of tasks", "struct percpu_counter", "count"),
		optional("memory of tasks", "struct percpu_counter", "counters"), // with SMP

		// include/linux/module.h
		list("modules", "struct module", "name", "state", "list", "taints", "kallsyms", "mem|core_layout"),
		optional("code of modules", "struct module", "core_layout", "init_layout"),
		optional("code of modules", "struct module_layout", "base", "size", "text_size"), // until v6.3
		optional("code of modules", "struct module_memory", "base", "size"),              // since v6.4
		optional("code of modules", "enumerator", "MOD_TEXT", "MOD_DATA", "MOD_RODATA", "MOD_RO_AFTER_INIT",
			"MOD_INIT_TEXT", "MOD_INIT_DATA", "MOD_INIT_RODATA"),
		list("modules", "enumerator", "MODULE_STATE_UNFORMED"),
		list("symbols of modules", "struct mod_kallsyms", "num_symtab", "symtab", "strtab"),
		optional("symbols of modules", "struct mod_kallsyms", "typetab"), // since v5.2
		// CONFIG_MODULE_UNLOAD
		optional("users of modules", "struct module", "refcnt", "refcnt.counter", "source_list"),
		optional("users of modules", "struct module_use", "source", "source_list"),
		// CONFIG_MODVERSIONS aside, always there, and often NULL.
		optional("versions of modules", "struct module", "version", "srcversion"),

		// kernel/module/sysfs.c
		optional("source lines of modules", "struct module", "sect_attrs"), // CONFIG_KALLSYMS
		optional("source lines of modules", "struct module_sect_attrs", "nsections", "attrs", "grp.bin_attrs"),
		optional("source lines of modules", "struct module_sect_attr", "battr.attr.name", "address"), // until v6.13
		optional("source lines of modules", "struct bin_attribute", "attr.name", "private"),

		// include/linux/btf.h, kernel/bpf/btf.c
		optional("types of modules", "struct btf_module", "list", "module", "btf"), // since v5.11
		list("types of modules", "struct btf", "data", "data_size"),

		// include/linux/panic.h, kexec.h, elfcore.h
		list("letters of taints", "struct taint_flag", "c_true"),
		list("registers of CPUs", "note_buf_t", ""),

		// include/linux/timekeeper_internal.h
		list("time", "struct timekeeper", "xtime_sec", "tkr_mono.shift", "tkr_mono.xtime_nsec", "tkr_mono.base", "offs_boot"),
		optional("time", "struct tk_data", "timekeeper"), // since v6.13
		list("time", "seqcount_raw_spinlock_t", ""),

		// arch/x86: processor.h, cpu_entry_area.h, unwind.h
		optional("stacks of interrupts", "struct pcpu_hot", "hardirq_stack_ptr"), // from v6.2 to v6.14
		list("stacks of exceptions", "struct cea_exception_stacks", "DF_stack", "NMI_stack", "DB_stack", "MCE_stack"),
		optional("stacks of exceptions", "struct cea_exception_stacks", "VC_stack", "VC2_stack"),
		list("stacks of exceptions", "struct cpu_entry_area", "estacks", "entry_stack_page.stack"),
		list("stacks of tasks", "struct inactive_task_frame", "ret_addr", "bp"),
		list("variables of tasks", "struct inactive_task_frame", "bx", "r12", "r13", "r14", "r15"),
		optional("stacks through modules", "struct module", "arch.num_orcs", "arch.orc_unwind_ip", "arch.orc_unwind"), // CONFIG_UNWINDER_ORC

		// include/linux/ftrace.h, kprobes.h, rethook.h
		optional("stacks through traced functions", "struct task_struct", "ret_stack"),
		optional("stacks through traced functions", "struct ftrace_ret_stack", "ret", "retp"),
		optional("stacks through traced functions", "struct ftrace_ops", "trampoline", "trampoline_size", "flags", "next"),
		optional("stacks through traced functions", "enumerator", "FTRACE_OPS_FL_SAVE_REGS"),
		optional("stacks through probed functions", "struct task_struct", "rethooks", "kretprobe_instances"),
		optional("stacks through probed functions", "struct rethook_node", "ret_addr", "frame", "llist"),
		optional("stacks through probed functions", "struct kretprobe_instance", "ret_addr", "fp", "llist"),

		// include/linux/mmzone.h, mm_types.h
		list("free pages", "struct pglist_data", "node_zones"),
		list("free pages", "struct zone", "free_area"),
		list("free pages", "struct free_area", "free_list", "nr_free"),
		list("free pages", "struct page", "buddy_list|lru"),
	} {
		all = append(all, needs...)
	}
	for i := range all {
		if len(all[i].Any) == 1 && all[i].Any[0] == "" {
			all[i].Any = nil // the type itself
		}
	}
	return all
}
