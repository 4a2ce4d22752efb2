package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// Task is one thread: a struct task_struct (include/linux/sched.h).
type Task struct {
	Addr     addr.Virt `json:"address"` // of the task_struct
	PID      int       `json:"pid"`     // 0 for the idle tasks
	TGID     int       `json:"tgid"`
	PPID     int       `json:"ppid"` // the thread group of the real parent
	Comm     string    `json:"comm"` // at most 15 bytes, as the kernel keeps it
	State    string    `json:"state"`
	RawState uint64    `json:"raw_state"` // __state
	Exit     uint64    `json:"exit_state"`
	CPU      int       `json:"cpu"`     // that it runs on, or ran on last
	Running  bool      `json:"running"` // its CPU's current task
	Idle     bool      `json:"idle"`    // an idle task of a CPU
	Kthread  bool      `json:"kthread"`
	UID      int       `json:"uid"`
	MM       addr.Virt `json:"mm"`        // its own mm_struct; 0 for kernel threads
	RSSBytes uint64    `json:"rss_bytes"` // resident memory of its mm, as in VmRSS
	VMBytes  uint64    `json:"vm_bytes"`  // size of its mm, as in VmSize
	Stack    addr.Virt `json:"stack"`     // lowest address of its kernel stack

	Problems Problems `json:"problems,omitempty"`
}

// Tasks returns every thread: first the idle tasks by CPU, then the others by
// PID.
//
// Threads are found in two ways, and each that either finds is returned: by the
// PIDs of the initial PID namespace, where damage to one thread hides no other,
// and by the list of processes and their threads. An error says how a walk
// ended; it may come with a complete answer.
func Tasks(p *crashkit.Program) ([]Task, error) {
	w, err := newTaskReader(p)
	if err != nil {
		return nil, fmt.Errorf("tasks: %w", err)
	}
	var problems Problems
	problems.note(w.runqueues())
	problems.note(w.byPID())
	problems.note(w.byList())
	if init := p.Object("init_task"); init.Err() == nil {
		problems.note(w.add(init, true))
	}
	slices.SortStableFunc(w.tasks, func(a, b Task) int {
		switch {
		case a.Idle != b.Idle:
			if a.Idle {
				return -1
			}
			return 1
		case a.Idle:
			return cmp.Compare(a.CPU, b.CPU)
		}
		return cmp.Compare(a.PID, b.PID)
	})
	if err := problems.Err(); err != nil {
		return w.tasks, fmt.Errorf("tasks: %w", err)
	}
	return w.tasks, nil
}

// TaskAt reads the task whose task_struct is at v.
func TaskAt(p *crashkit.Program, v addr.Virt) (Task, error) {
	w, err := newTaskReader(p)
	if err != nil {
		return Task{}, fmt.Errorf("task %v: %w", v, err)
	}
	err = w.runqueues()
	for _, t := range w.tasks {
		if t.Addr == v {
			return t, nil
		}
	}
	t := w.read(ctype.NewObject(p, w.typ, v, fmt.Sprintf("(struct task_struct *)%v", v)))
	t.Problems.note(err)
	return t, nil
}

// CurrentTasks returns the current task of each online CPU, ascending by CPU.
// A CPU whose task cannot be read is left out, with an error.
func CurrentTasks(p *crashkit.Program) ([]Task, error) {
	w, err := newTaskReader(p)
	if err != nil {
		return nil, fmt.Errorf("current tasks: %w", err)
	}
	err = w.runqueues()
	online, oerr := OnlineCPUs(p)
	var tasks []Task
	for _, cpu := range online {
		for v, c := range w.current {
			if c == cpu {
				tasks = append(tasks, w.read(ctype.NewObject(p, w.typ, v, fmt.Sprintf("runqueues[cpu %d].curr", cpu))))
			}
		}
	}
	return tasks, errors.Join(err, oerr)
}

// OnlineCPUs returns the numbers of the CPUs that were online, ascending.
func OnlineCPUs(p *crashkit.Program) ([]int, error) { return p.CPUs("__cpu_online_mask") }

type taskReader struct {
	p       *crashkit.Program
	typ     ctype.Type
	states  taskStates
	rss     rssReader
	tasks   []Task
	seen    map[addr.Virt]bool
	current map[addr.Virt]int // CPU by task_struct
}

func newTaskReader(p *crashkit.Program) (*taskReader, error) {
	t, err := p.Type("struct task_struct")
	if err != nil {
		return nil, err
	}
	return &taskReader{
		p: p, typ: t, states: readTaskStates(p), rss: newRSSReader(p),
		seen: make(map[addr.Virt]bool), current: make(map[addr.Virt]int),
	}, nil
}

// runqueues notes each CPU's current task and adds its idle task.
func (w *taskReader) runqueues() error {
	cpus, err := w.p.CPUs("__cpu_possible_mask")
	if err != nil {
		return err
	}
	var problems Problems
	var idle []ctype.Object
	for _, cpu := range cpus {
		rq := w.p.PerCPUObject("runqueues", "struct rq", cpu)
		curr, err := rq.Member("curr").Ptr()
		if err != nil {
			problems.note(err)
			continue
		}
		if curr != 0 {
			w.current[curr] = cpu
		}
		if o := rq.Member("idle"); problems.ptr(o) != 0 {
			idle = append(idle, o.Deref())
		}
	}
	for _, o := range idle {
		problems.note(w.add(o, true))
	}
	return problems.Err()
}

// byPID adds the threads of the initial PID namespace.
func (w *taskReader) byPID() error {
	pid, err := w.p.Type("struct pid")
	if err != nil {
		return err
	}
	kind, _ := w.p.Types.Enumerator("PIDTYPE_PID") // 0, the first, if unnamed
	// Since Linux commit 2c4704756cab ("pids: Move the pgrp and session pid
	// pointers from task_struct to signal_struct") (in v4.19) pid_links.
	link, err := ctype.OffsetOf(w.typ, "pid_links")
	if err != nil {
		return err
	}
	link += kind * 16 // sizeof(struct hlist_node)
	var problems Problems
	err = ForEachXA(w.p, w.p.Object("init_pid_ns").Member("idr.idr_rt"), func(nr uint64, entry addr.Virt) bool {
		o := ctype.NewObject(w.p, pid, entry, fmt.Sprintf("pid %d", nr))
		first, err := o.Member("tasks").Index(int(kind)).Member("first").Ptr()
		if err != nil {
			problems.note(err)
		} else if first != 0 { // else only a process group or session of that number is left
			problems.note(w.add(ctype.NewObject(w.p, w.typ, first-addr.Virt(link), fmt.Sprintf("task of PID %d", nr)), false))
		}
		return true
	})
	return errors.Join(err, problems.Err())
}

// byList adds the processes and their threads.
func (w *taskReader) byList() error {
	var problems Problems
	head := w.p.Object("init_task").Member("tasks")
	err := w.p.List(head, w.typ, "tasks", func(leader ctype.Object) bool {
		if err := w.add(leader, false); err != nil {
			problems.note(err)
			return true
		}
		err := w.p.List(leader.Member("signal").Deref().Member("thread_head"), w.typ, "thread_node", func(t ctype.Object) bool {
			problems.note(w.add(t, false))
			return true
		})
		problems.note(err)
		return true
	})
	return errors.Join(err, problems.Err())
}

// add reads the task o, unless it was already added. What has no readable PID is
// no row, but an error: a bad link leads anywhere.
func (w *taskReader) add(o ctype.Object, idle bool) error {
	if o.Err() != nil {
		return o.Err()
	}
	if w.seen[o.Addr()] {
		return nil
	}
	if _, err := o.Member("pid").Uint(); err != nil {
		return err
	}
	w.seen[o.Addr()] = true
	t := w.read(o)
	t.Idle = idle
	w.tasks = append(w.tasks, t)
	return nil
}

// pfKthread is PF_KTHREAD, a macro (include/linux/sched.h).
const pfKthread = 0x00200000

func (w *taskReader) read(o ctype.Object) Task {
	var e Problems
	t := Task{
		Addr:  o.Addr(),
		PID:   e.int(o.Member("pid")),
		TGID:  e.int(o.Member("tgid")),
		Comm:  e.str(o.Member("comm")),
		Stack: e.ptr(o.Member("stack")),
		MM:    e.ptr(o.Member("mm")),
		UID:   e.int(o.Member("cred").Deref().Member("uid.val")),
		// Since Linux commit 2f064a59a11f ("sched: Change task_struct::state") (in v5.14) __state.
		RawState: e.uint(o.Member("__state", "state")),
		Exit:     e.uint(o.Member("exit_state")),
		Kthread:  e.uint(o.Member("flags"))&pfKthread != 0,
	}
	// The parent of an idle task is itself.
	t.PPID = e.int(o.Member("real_parent").Deref().Member("tgid"))
	// Since Linux commit bcf9033e5449 ("sched: move CPU field back into
	// thread_info if THREAD_INFO_IN_TASK=y") (in v5.16) thread_info.cpu; a kernel
	// without SMP has neither.
	for _, path := range []string{"thread_info.cpu", "cpu"} {
		if o.Has(path) {
			t.CPU = e.int(o.Member(path))
			break
		}
	}
	t.State = w.states.name(t.RawState, t.Exit)
	if cpu, ok := w.current[t.Addr]; ok {
		t.CPU, t.Running = cpu, true
	}
	if t.MM != 0 {
		mm := o.Member("mm").Deref()
		t.VMBytes = e.uint(mm.Member("total_vm")) * uint64(w.p.Image.PageSize())
		pages, err := w.rss.pages(mm.Member("rss_stat"))
		e.note(err)
		t.RSSBytes = pages * uint64(w.p.Image.PageSize())
	}
	t.Problems = e
	return t
}

// taskStates are the states that the kernel reports in /proc, by the number of
// the bit: 0 for running, 1 for 1<<0 and so on.
type taskStates []string

// crashStates are crash's names of the letters of /proc/PID/status.
var crashStates = map[byte]string{
	'R': "RU", 'S': "IN", 'D': "UN", 'T': "ST", 't': "TR", 'X': "DE", 'Z': "ZO", 'P': "PA", 'I': "ID",
}

// defaultStates holds since Linux commit 8ef9925b02c2 ("sched/debug: Add explicit
// TASK_PARKED printing") (in v4.14); used if the dump does not have the table.
var defaultStates = taskStates{"RU", "IN", "UN", "ST", "TR", "DE", "ZO", "PA", "ID"}

// readTaskStates reads task_state_array, pointers to strings such as "S
// (sleeping)" (fs/proc/array.c).
func readTaskStates(p *crashkit.Program) taskStates {
	s, ok := p.Syms.Lookup("task_state_array")
	if !ok || s.Size < 8 {
		return defaultStates
	}
	var states taskStates
	for i := range min(s.Size/8, 16) {
		at, err := p.Uint64(s.Addr + addr.Virt(8*i))
		if err != nil {
			return defaultStates
		}
		text, err := ctype.CString(p, addr.Virt(at))
		name := ""
		if err == nil && len(text) > 0 {
			name = crashStates[text[0]]
		}
		if name == "" {
			break // padding behind the table
		}
		states = append(states, name)
	}
	if len(states) < len(defaultStates) {
		return defaultStates
	}
	return states
}

// IsTaskState reports whether s is a name that Task.State may have.
func IsTaskState(s string) bool {
	return slices.Contains(defaultStates, s) || s == "NE" || s == "WA"
}

// Bits of the state above those reported (include/linux/sched.h). Unlike the
// bits below they have been in place since v4.14.
const (
	taskUninterruptible = 0x0002
	taskDead            = 0x0080
	taskWaking          = 0x0200
	taskNoLoad          = 0x0400
	taskNew             = 0x0800
)

// name returns crash's two letters for a task's state, as __task_state_index
// chooses among the reported ones.
func (s taskStates) name(state, exit uint64) string {
	// The last one, idle, is uninterruptible and not counted as load.
	idle := len(s) - 1
	report := uint64(1)<<(idle-1) - 1
	const taskIdle = taskUninterruptible | taskNoLoad
	switch {
	case exit == 0 && state&taskIdle == taskIdle:
		return s[idle]
	case (state|exit)&report != 0:
		return s[bits.Len64((state|exit)&report)]
	case state&taskNew != 0:
		return "NE"
	case state&taskWaking != 0:
		return "WA"
	case state&taskDead != 0:
		return "DE"
	case state != 0:
		// Of the rest, TASK_RTLOCK_WAIT and TASK_FROZEN, the kernel reports as
		// uninterruptible.
		return "UN"
	}
	return s[0]
}

// rssReader reads how much memory an mm has resident.
type rssReader struct {
	p        *crashkit.Program
	counters []int // indexes that count as resident
	cpus     []addr.Virt
}

func newRSSReader(p *crashkit.Program) rssReader {
	r := rssReader{p: p}
	for _, name := range []string{"MM_FILEPAGES", "MM_ANONPAGES", "MM_SHMEMPAGES"} {
		if v, ok := p.Types.Enumerator(name); ok {
			r.counters = append(r.counters, int(v))
		}
	}
	cpus, _ := p.CPUs("__cpu_possible_mask") // without them, what follows is less precise
	for _, cpu := range cpus {
		if off, err := p.PerCPU(cpu); err == nil {
			r.cpus = append(r.cpus, off)
		}
	}
	return r
}

// pages sums up an mm_struct's rss_stat.
func (r rssReader) pages(stat ctype.Object) (uint64, error) {
	var sum int64
	var e Problems
	for _, i := range r.counters {
		if stat.Has("count") {
			// Until v6.1: struct mm_rss_stat.
			sum += int64(e.uint(stat.Member("count").Index(i).Member("counter")))
			continue
		}
		// Since Linux commit f1a7941243c1 ("mm: convert mm's rss stats into
		// percpu_counter") (in v6.2): what the CPUs have not yet added stands in
		// their own counters.
		c := stat.Index(i)
		sum += int64(e.uint(c.Member("count")))
		at, err := c.Member("counters").Ptr()
		if err != nil || at == 0 {
			continue // a kernel without SMP has none
		}
		for _, off := range r.cpus {
			n, err := r.p.Uint32(at + off)
			e.note(err)
			sum += int64(int32(n))
		}
	}
	return uint64(max(sum, 0)), e.Err()
}
