package kernel_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/internal/coretest"
	"crashlab/crashkit/kernel"
)

// made is a kernel made up with the types of a real one: two CPUs, and a few tasks.
type made struct {
	*coretest.Core
	t    *testing.T
	cpu  [2]addr.Virt // their per-cpu memory
	task map[int]addr.Virt
	pids addr.Virt // the root node of the PIDs
}

const (
	task     = "struct task_struct"
	rqOffset = 0x100 // the address of runqueues, which is per-cpu
)

// forEachKernel runs a test on a kernel with the types of each in testdata.
func forEachKernel(t *testing.T, f func(t *testing.T, m *made)) {
	files, err := filepath.Glob("testdata/*.btf")
	if err != nil || len(files) == 0 {
		t.Fatalf("no types of real kernels in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".btf"), func(t *testing.T) {
			btf, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f(t, makeKernel(t, btf))
		})
	}
}

func makeKernel(t *testing.T, btf []byte) *made {
	m := &made{Core: coretest.New(t, btf), t: t, task: map[int]addr.Virt{}}
	for _, mask := range []string{"possible", "present", "online"} {
		m.Uint64(m.Global(t, "__cpu_"+mask+"_mask", "struct cpumask"), 3)
	}
	offsets := m.Data(16)
	m.Symbol("__per_cpu_offset", 'R', offsets)
	m.Symbol("runqueues", 'A', rqOffset)
	for i := range m.cpu {
		m.cpu[i] = m.Alloc(16 << 10)
		m.Uint64(offsets+addr.Virt(8*i), uint64(m.cpu[i]))
	}

	idle := m.Global(t, "init_task", task)
	m.fill(idle, 0, 0, idle, "swapper/0")
	idle1 := m.New(t, task)
	m.fill(idle1, 0, 0, idle, "swapper/1")
	m.set(idle1, task, 1, "thread_info.cpu", "cpu")
	m.set(m.cpu[0]+rqOffset, "struct rq", idle, "idle")
	m.set(m.cpu[1]+rqOffset, "struct rq", idle1, "idle")
	m.set(m.cpu[1]+rqOffset, "struct rq", idle1, "curr")

	ns := m.Global(t, "init_pid_ns", "struct pid_namespace")
	m.pids = m.New(t, "struct xa_node")
	root := m.New(t, "struct xa_node")
	m.Set(t, root, "struct xa_node", "shift", 6)
	m.Uint64(root+m.Offset(t, "struct xa_node", "slots"), uint64(m.pids)+2)
	m.Uint64(ns+m.Offset(t, "struct pid_namespace", "idr.idr_rt")+m.Offset(t, "struct xarray", "xa_head"), uint64(root)+2)

	m.process(1, idle, "init")
	m.process(2, idle, "kthreadd")
	m.set(m.task[2], task, 0x00200000|0x40, "flags")
	m.process(40, m.task[1], "threads")
	m.thread(41, m.task[40], "threads")
	m.process(50, m.task[1], "zombie")
	links := []addr.Virt{}
	for _, pid := range []int{1, 2, 40, 50} {
		links = append(links, m.task[pid]+m.Offset(t, task, "tasks"))
	}
	m.List(idle+m.Offset(t, task, "tasks"), links...)
	m.set(m.cpu[0]+rqOffset, "struct rq", m.task[41], "curr")
	return m
}

// set writes the first of the members that the kernel has.
func (m *made) set(v addr.Virt, typ string, value any, paths ...string) {
	m.t.Helper()
	for _, path := range paths {
		if m.Has(typ, path) {
			m.Set(m.t, v, typ, path, value)
			return
		}
	}
	m.t.Fatalf("%s has none of %v", typ, paths)
}

func (m *made) fill(v addr.Virt, pid, tgid int, parent addr.Virt, comm string) {
	cred := m.New(m.t, "struct cred")
	m.set(cred, "struct cred", 1000+pid, "uid.val")
	m.set(v, task, pid, "pid")
	m.set(v, task, tgid, "tgid")
	m.set(v, task, comm, "comm")
	m.set(v, task, parent, "real_parent")
	m.set(v, task, cred, "cred")
	m.set(v, task, 0x5000+pid, "stack")
	m.task[pid] = v
}

// process adds a task that leads its own threads.
func (m *made) process(pid int, parent addr.Virt, comm string) {
	v := m.New(m.t, task)
	m.fill(v, pid, pid, parent, comm)
	sig := m.New(m.t, "struct signal_struct")
	m.set(v, task, sig, "signal")
	m.List(sig+m.Offset(m.t, "struct signal_struct", "thread_head"), v+m.Offset(m.t, task, "thread_node"))
	m.hash(pid)
}

// thread adds a second task to a process.
func (m *made) thread(pid int, leader addr.Virt, comm string) {
	v := m.New(m.t, task)
	m.fill(v, pid, pid-1, m.task[1], comm)
	sig := m.New(m.t, "struct signal_struct")
	for _, k := range []addr.Virt{leader, v} {
		m.set(k, task, sig, "signal")
	}
	node := m.Offset(m.t, task, "thread_node")
	m.List(sig+m.Offset(m.t, "struct signal_struct", "thread_head"), leader+node, v+node)
	m.hash(pid)
}

// hash enters a task under its PID.
func (m *made) hash(pid int) {
	p := m.New(m.t, "struct pid")
	m.Uint64(p+m.Offset(m.t, "struct pid", "tasks"), uint64(m.task[pid]+m.Offset(m.t, task, "pid_links")))
	m.Uint64(m.pids+m.Offset(m.t, "struct xa_node", "slots")+addr.Virt(8*pid), uint64(p))
}

func describe(tasks []kernel.Task) string {
	var b strings.Builder
	for _, k := range tasks {
		fmt.Fprintf(&b, "%d/%d<%d %s %s cpu%d uid%d", k.PID, k.TGID, k.PPID, k.Comm, k.State, k.CPU, k.UID)
		for _, flag := range []struct {
			name string
			on   bool
		}{{"running", k.Running}, {"idle", k.Idle}, {"kthread", k.Kthread}, {"problems", len(k.Problems) > 0}} {
			if flag.on {
				b.WriteString(" " + flag.name)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestTasksOfEveryLayout(t *testing.T) {
	forEachKernel(t, func(t *testing.T, m *made) {
		m.set(m.task[1], task, 1, "__state", "state")
		m.set(m.task[2], task, 0x402, "__state", "state")
		m.set(m.task[50], task, 0x80, "__state", "state")
		m.set(m.task[50], task, 0x20, "exit_state")
		m.set(m.task[40], task, 1, "thread_info.cpu", "cpu")
		tasks, err := kernel.Tasks(m.Open(t))
		if err != nil {
			t.Fatal(err)
		}
		const want = `0/0<0 swapper/0 RU cpu0 uid1000 idle
0/0<0 swapper/1 RU cpu1 uid1000 running idle
1/1<0 init IN cpu0 uid1001
2/2<0 kthreadd ID cpu0 uid1002 kthread
40/40<1 threads RU cpu1 uid1040
41/40<1 threads RU cpu0 uid1041 running
50/50<1 zombie ZO cpu0 uid1050
`
		if d := cmp.Diff(want, describe(tasks)); d != "" {
			t.Errorf("Tasks: -want +got:\n%s", d)
		}
	})
}

func TestMemoryOfEveryLayout(t *testing.T) {
	forEachKernel(t, func(t *testing.T, m *made) {
		mm := m.New(t, "struct mm_struct")
		m.set(m.task[40], task, mm, "mm")
		m.set(mm, "struct mm_struct", 1000, "total_vm")
		stat := mm + m.Offset(t, "struct mm_struct", "rss_stat")
		want := uint64(5 + 7 + 100)
		if m.Has("struct mm_rss_stat", "count") {
			for i, n := range []uint64{5, 7, 1 << 20 /* swapped out */, 100} {
				m.Uint64(stat+addr.Virt(8*i), n)
			}
		} else {
			const counter = "struct percpu_counter"
			size := addr.Virt(m.Size(t, counter))
			for i, n := range []uint64{5, 7, 1 << 20, 100} {
				m.set(stat+addr.Virt(i)*size, counter, n, "count")
			}
			// What the CPUs have not yet added: 30 and -1.
			m.set(stat, counter, 0x800, "counters")
			m.Write(m.cpu[0]+0x800, binary.LittleEndian.AppendUint32(nil, 30))
			m.Write(m.cpu[1]+0x800, binary.LittleEndian.AppendUint32(nil, 0xffffffff))
			want += 29
		}
		tasks, err := kernel.Tasks(m.Open(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range tasks {
			if k.PID == 40 && (k.RSSBytes != want*4096 || k.VMBytes != 1000*4096 || len(k.Problems) > 0) {
				t.Errorf("task 40 has %d bytes resident of %d, problems %v; want %d of %d", k.RSSBytes, k.VMBytes, k.Problems, want*4096, 1000*4096)
			}
		}
	})
}

// Damage takes away what it hits and no more.
func TestTasksDamaged(t *testing.T) {
	btf, err := os.ReadFile("testdata/6.1.btf")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		damage func(m *made)
		pids   string
		err    string
	}{
		{"whole", func(*made) {}, "0 0 1 2 40 41 50 ", ""},
		{
			"the list of processes loops", func(m *made) {
				next := m.task[40] + m.Offset(m.t, task, "tasks")
				m.Uint64(next, uint64(m.task[2]+m.Offset(m.t, task, "tasks")))
			},
			"0 0 1 2 40 41 50 ", "loops",
		},
		{
			"the list leads to nowhere", func(m *made) { m.Uint64(m.task[1]+m.Offset(m.t, task, "tasks"), 0) },
			"0 0 1 2 40 41 50 ", "list init_task.tasks",
		},
		{
			"no PIDs", func(m *made) { m.Uint64(m.pids, 63) },
			"0 0 1 2 40 41 50 ", "xarray",
		},
		{
			"neither PIDs nor list", func(m *made) {
				m.Uint64(m.pids, 63)
				m.Uint64(m.task[1]+m.Offset(m.t, task, "tasks"), 0)
			},
			"0 0 1 ", "xarray",
		},
		{
			"no memory of a CPU", func(m *made) { m.Drop(m.cpu[0] + rqOffset + m.Offset(m.t, "struct rq", "curr")) },
			"0 0 1 2 40 41 50 ", "runqueues[cpu 0].curr",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := makeKernel(t, btf)
			c.damage(m)
			tasks, err := kernel.Tasks(m.Open(t))
			got := ""
			for _, k := range tasks {
				got += fmt.Sprint(k.PID, " ")
			}
			if got != c.pids || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("Tasks = %q, %v; want %q and %q", got, err, c.pids, c.err)
			}
		})
	}
}

// A row that can be read in part is there, and says what is missing.
func TestTaskWithProblems(t *testing.T) {
	btf, err := os.ReadFile("testdata/6.1.btf")
	if err != nil {
		t.Fatal(err)
	}
	m := makeKernel(t, btf)
	m.set(m.task[40], task, uint64(0xdead000000000000), "cred")
	tasks, err := kernel.Tasks(m.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range tasks {
		if want := k.PID == 40; (len(k.Problems) > 0) != want {
			t.Errorf("PID %d has problems %v", k.PID, k.Problems)
		}
		if k.PID == 40 && (k.Comm != "threads" || k.UID != 0) {
			t.Errorf("task = %+v; want all of it but the UID", k)
		}
	}
}

// clock writes a timekeeper: 1,000,000,000.5 s after 1970, 7.5 s after boot.
func (m *made) clock(v addr.Virt) {
	const tk = "struct timekeeper"
	m.set(v, tk, 1_000_000_000, "xtime_sec")
	m.set(v, tk, 8, "tkr_mono.shift")
	m.set(v, tk, 500_000_000<<8, "tkr_mono.xtime_nsec")
	m.set(v, tk, 4_000_000_000, "tkr_mono.base")
	m.set(v, tk, 3_000_000_000, "offs_boot")
}

func TestClockOfEveryLayout(t *testing.T) {
	forEachKernel(t, func(t *testing.T, m *made) {
		if m.Has("struct tk_data", "timekeeper") {
			v := m.Global(t, "timekeeper_data", "struct tk_data")
			m.clock(v + m.Offset(t, "struct tk_data", "timekeeper"))
		} else {
			v := m.Data(4096)
			m.Symbol("tk_core", 'b', v)
			m.clock(v + 8) // behind a seqcount
		}
		check := func(p *crashkit.Program, want time.Time) {
			s := kernel.Sys(p)
			if !s.CrashTime.Equal(want) || s.Uptime != 7500*time.Millisecond {
				t.Errorf("crashed at %v, %v after boot; want %v and 7.5s", s.CrashTime, s.Uptime, want)
			}
		}
		check(m.Open(t), time.Unix(1_000_000_000, 500_000_000))
		m.Info = append(m.Info, "CRASHTIME=1000000777")
		check(m.Open(t), time.Unix(1_000_000_777, 0))
	})
}

// note is an NT_PRSTATUS note with a PID and an instruction pointer.
func note(pid int, rip uint64) []byte {
	b := make([]byte, 336)
	binary.LittleEndian.PutUint32(b[32:], uint32(pid))
	binary.LittleEndian.PutUint64(b[112+16*8:], rip)
	return coretest.Note("CORE", 1, b)
}

func TestRegistersOfCPUs(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(m *made)
		want  string
	}{
		{"crash_notes", func(m *made) {
			m.Notes = append(note(41, 0xbad), note(0, 0xbad)...) // their order means nothing
			at := m.Data(8)
			m.Symbol("crash_notes", 'B', at)
			m.Uint64(at, 0x400)
			m.Write(m.cpu[0]+0x400, note(41, 0x1000))
			m.Write(m.cpu[1]+0x400, note(0, 0x2000))
		}, "0 PID 41 rip 0x1000 crash_notes; 1 PID 0 rip 0x2000 crash_notes panic; "},
		{"a CPU that did not stop", func(m *made) {
			at := m.Data(8)
			m.Symbol("crash_notes", 'B', at)
			m.Uint64(at, 0x400)
			m.Write(m.cpu[0]+0x400, note(41, 0x1000))
		}, "0 PID 41 rip 0x1000 crash_notes; 1 PID -1 panic; "},
		{"QEMU", func(m *made) {
			m.Notes = append(note(2, 0x2000), note(1, 0x1000)...)
			m.Notes = append(m.Notes, coretest.Note("QEMU", 0, make([]byte, 8))...)
		}, "0 PID -1 rip 0x1000 QEMU; 1 PID -1 rip 0x2000 QEMU panic; "},
	} {
		t.Run(c.name, func(t *testing.T) {
			forEachKernel(t, func(t *testing.T, m *made) {
				m.set(m.Global(t, "panic_cpu", "atomic_t"), "atomic_t", 1, "counter")
				c.setup(m)
				cpus, err := kernel.CPUs(m.Open(t))
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				for _, k := range cpus {
					got += fmt.Sprintf("%d PID %d", k.CPU, k.PID)
					if k.Regs != nil {
						got += fmt.Sprintf(" rip %#x %s", k.Regs.RIP, k.Source)
					}
					if k.Panic {
						got += " panic"
					}
					got += "; "
					if len(k.Problems) > 0 {
						t.Errorf("CPU %d: %v", k.CPU, k.Problems)
					}
				}
				if got != c.want {
					t.Errorf("CPUs: %s\nwant: %s", got, c.want)
				}
			})
		})
	}
}

func TestPanicCPU(t *testing.T) {
	btf, err := os.ReadFile("testdata/6.1.btf")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name            string
		panic, crashing int
		cpu             int
		ok              bool
	}{
		{"panic", 3, -1, 3, true},
		{"no panic", -1, -1, 0, false},
		{"only crashing_cpu", -1, 2, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := coretest.New(t, btf)
			m.Set(t, m.Global(t, "panic_cpu", "atomic_t"), "atomic_t", "counter", c.panic)
			m.Set(t, m.Global(t, "crashing_cpu", "atomic_t"), "atomic_t", "counter", c.crashing)
			if cpu, ok, err := kernel.PanicCPU(m.Open(t)); cpu != c.cpu || ok != c.ok || err != nil {
				t.Errorf("PanicCPU = %d, %v, %v; want %d, %v", cpu, ok, err, c.cpu, c.ok)
			}
		})
	}
}
