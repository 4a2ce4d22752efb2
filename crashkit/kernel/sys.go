package kernel

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// UTSName is the kernel's struct new_utsname (include/uapi/linux/utsname.h).
type UTSName struct {
	Sysname    string `json:"sysname"`
	Nodename   string `json:"nodename"`
	Release    string `json:"release"`
	Version    string `json:"version"`
	Machine    string `json:"machine"`
	Domainname string `json:"domainname"`
}

// UTS reads the name of the kernel and the machine, by VMCOREINFO alone where
// that has OFFSET(uts_namespace.name), which that of 5.10 has not.
func UTS(p *crashkit.Program) (UTSName, error) {
	const field = 65 // __NEW_UTS_LEN + 1, an ABI
	var u UTSName
	var from addr.Virt
	at, ok := p.Info.Symbol("init_uts_ns")
	off, ok2 := p.Info.Offset("uts_namespace.name")
	if ok && ok2 {
		from = addr.Virt(at + off)
	} else {
		name := p.Object("init_uts_ns").Member("name")
		if err := name.Err(); err != nil {
			return u, fmt.Errorf("utsname: VMCOREINFO has no SYMBOL(init_uts_ns) and OFFSET(uts_namespace.name): %w", err)
		}
		from = name.Addr()
	}
	var b [6 * field]byte
	if err := p.Read(from, b[:]); err != nil {
		return u, fmt.Errorf("utsname: %w", err)
	}
	for i, s := range []*string{&u.Sysname, &u.Nodename, &u.Release, &u.Version, &u.Machine, &u.Domainname} {
		*s = cstring(b[i*field:][:field])
	}
	return u, nil
}

// System is the crashed kernel and its machine as a whole. What could not be
// read is zero and has its reason in Problems.
type System struct {
	UTS         UTSName       `json:"uts"`
	CommandLine string        `json:"command_line"`
	KASLROffset uint64        `json:"kaslr_offset"`
	PageSize    int           `json:"page_size"`
	CPUsOnline  int           `json:"cpus_online"`
	CPUsPresent int           `json:"cpus_present"`
	MemoryBytes uint64        `json:"memory_bytes"` // RAM that the kernel managed: MemTotal of /proc/meminfo
	CrashTime   time.Time     `json:"crash_time"`   // zero if unknown
	Uptime      time.Duration `json:"uptime_ns"`
	Load        [3]float64    `json:"load"` // averages over 1, 5 and 15 minutes
	Taints      []Taint       `json:"taints"`

	Problems Problems `json:"problems,omitempty"`
}

// Sys reads what is known of the system as a whole.
func Sys(p *crashkit.Program) System {
	var e Problems
	s := System{PageSize: p.Image.PageSize()}
	var err error
	s.UTS, err = UTS(p)
	e.note(err)
	s.CommandLine, err = CommandLine(p)
	e.note(err)
	s.KASLROffset, _ = p.Info.Uint("KERNELOFFSET", 16) // absent without CONFIG_RANDOMIZE_BASE: not moved
	online, err := OnlineCPUs(p)
	e.note(err)
	present, err := p.CPUs("__cpu_present_mask")
	e.note(err)
	s.CPUsOnline, s.CPUsPresent = len(online), len(present)
	s.MemoryBytes, err = totalRAM(p)
	e.note(err)
	s.Load, err = load(p)
	e.note(err)
	wall, up, err := clocks(p)
	e.note(err)
	s.CrashTime, s.Uptime = wall, up
	// The time of the crash itself; only kdump has it.
	if t, ok := p.Info.Uint("CRASHTIME", 10); ok {
		s.CrashTime = time.Unix(int64(t), 0).UTC()
	}
	s.Taints, err = Taints(p)
	e.note(err)
	s.Problems = e
	return s
}

// CommandLine reads the kernel's command line.
func CommandLine(p *crashkit.Program) (string, error) {
	v, err := p.Object("saved_command_line").Ptr()
	if err != nil {
		return "", err
	}
	s, err := ctype.CString(p, v)
	if err != nil {
		return "", fmt.Errorf("saved_command_line: %w", err)
	}
	return strings.TrimRight(s, "\n "), nil
}

// load reads the load averages: avenrun, fixed-point numbers.
func load(p *crashkit.Program) (load [3]float64, err error) {
	const fshift = 11 // FSHIFT of include/linux/sched/loadavg.h
	s, ok := p.Syms.Lookup("avenrun")
	if !ok {
		return load, fmt.Errorf("symbol avenrun: %w", ctype.ErrNotFound)
	}
	for i := range load {
		v, err := p.Uint64(s.Addr + addr.Virt(8*i))
		if err != nil {
			return load, fmt.Errorf("avenrun: %w", err)
		}
		load[i] = float64(v) / (1 << fshift)
	}
	return load, nil
}

func totalRAM(p *crashkit.Program) (uint64, error) {
	for _, name := range []string{"_totalram_pages", "totalram_pages"} { // the former since v5.0
		if s, ok := p.Syms.Lookup(name); ok {
			n, err := p.Uint64(s.Addr)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", name, err)
			}
			return n * uint64(p.Image.PageSize()), nil
		}
	}
	return 0, fmt.Errorf("symbol _totalram_pages: %w", ctype.ErrNotFound)
}

// clocks reads the timekeeper as of its last tick: the wall clock and the time
// since boot.
func clocks(p *crashkit.Program) (wall time.Time, up time.Duration, err error) {
	tk, err := timekeeper(p)
	if err != nil {
		return wall, 0, fmt.Errorf("timekeeper: %w", err)
	}
	var e Problems
	sec := e.uint(tk.Member("xtime_sec"))
	shift := e.uint(tk.Member("tkr_mono.shift"))
	ns := e.uint(tk.Member("tkr_mono.xtime_nsec")) >> (shift & 63)
	mono := e.uint(tk.Member("tkr_mono.base"))
	boot := e.uint(tk.Member("offs_boot"))
	if err := e.Err(); err != nil {
		return wall, 0, err
	}
	// One second of nanoseconds at most are not yet carried over.
	if sec > 1<<40 || ns >= 2e9 {
		return wall, 0, fmt.Errorf("timekeeper at %v: %d s and %d ns is no time", tk.Addr(), sec, ns)
	}
	return time.Unix(int64(sec), int64(ns)).UTC(), time.Duration(mono + boot + ns), nil
}

// timekeeper returns the struct timekeeper (include/linux/timekeeper_internal.h)
// of the system's clock.
func timekeeper(p *crashkit.Program) (ctype.Object, error) {
	// Since Linux commit 22c62b9a84b8 ("timekeeping: Introduce timekeeper ID")
	// (in v6.17) the first of an array.
	name := "timekeeper_data"
	if _, ok := p.Syms.Lookup(name); !ok {
		name = "tk_core"
	}
	// A struct of its own since v6.13; before, one without a name: a seqcount and
	// the timekeeper.
	if o := p.ObjectAs(name, "struct tk_data"); !errors.Is(o.Err(), ctype.ErrNotFound) {
		o = o.Member("timekeeper")
		return o, o.Err()
	}
	s, ok := p.Syms.Lookup(name)
	if !ok {
		return ctype.Object{}, fmt.Errorf("symbol tk_core: %w", ctype.ErrNotFound)
	}
	t, err := p.Type("struct timekeeper")
	if err != nil {
		return ctype.Object{}, err
	}
	seq := uint64(0)
	for _, name := range []string{"seqcount_raw_spinlock_t", "seqcount_t"} { // the former since v5.10
		if t, err := p.Type(name); err == nil {
			seq = t.Size()
			break
		}
	}
	return ctype.NewObject(p, t, s.Addr+addr.Virt((seq+7)&^7), name), nil
}
