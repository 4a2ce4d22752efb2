package command

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"crashlab/crashkit/dump"
	"crashlab/crashkit/kernel"
	"crashlab/crashkit/oops"
)

func sysCommand() *Command {
	return &Command{
		Name:    "sys",
		Summary: "show the system, its kernel and its end",
		Help: "Shows the dump file, the machine, the kernel and the first line of what the kernel said when it crashed. DATE is the " +
			"time of the crash where the dump has it, else the kernel's clock at its last tick, in UTC.",
		Examples: []string{"sys"},
		run:      sys,
	}
}

// system is the crashed system as a whole.
type system struct {
	Dump struct {
		Path        string   `json:"path"`
		Format      string   `json:"format"`
		Compression string   `json:"compression"`
		SizeBytes   int64    `json:"size_bytes"`
		Partial     bool     `json:"partial"` // pages were left out, on purpose or not
		Problems    []string `json:"problems"`
	} `json:"dump"`
	kernel.System
	// TypesFrom is the file that the types come from; "" for the dump itself.
	TypesFrom string `json:"types_from"`
	Tasks     int    `json:"tasks"`
	Panic     string `json:"panic"` // the kernel's first line about the crash; "" if it did not crash

	info    dump.Info
	noTypes bool
}

func sys(_ context.Context, env *Env, _ *Args) (Result, error) {
	s, err := env.system()
	return s, err
}

// system gathers what sys shows.
func (e *Env) system() (*system, error) {
	s := &system{System: kernel.Sys(e.Program), TypesFrom: e.Program.TypesFrom, info: e.Program.Image.Info(), noTypes: e.Program.Types.IsEmpty()}
	s.Dump.Path = e.Path
	s.Dump.Format, s.Dump.Compression = s.info.Format, s.info.Compression
	s.Dump.SizeBytes = s.info.FileSize
	s.Dump.Partial = s.info.DumpLevel > 0 || s.info.Truncated || s.info.Incomplete
	s.Dump.Problems = append([]string{}, s.info.Problems...)
	errs := append([]error(nil), s.Problems...)
	if s.UTS.Release == "" {
		s.UTS.Release = e.Program.Info.OSRelease()
	}
	all, err := e.tasks()
	errs = append(errs, err)
	s.Tasks = len(all)
	records, err := kernel.Log(e.Program)
	errs = append(errs, err)
	if r, ok := oops.Last(kernel.LogText(records)); ok {
		s.Panic = r.Title
	}
	return s, errors.Join(errs...)
}

// WriteText implements Result.
func (s *system) WriteText(t *Text) {
	note := ""
	switch {
	case s.info.Incomplete:
		note = "  [INCOMPLETE]"
	case s.info.Truncated:
		note = "  [TRUNCATED]"
	case s.Dump.Partial:
		note = "  [PARTIAL DUMP]"
	}
	tainted := ""
	if len(s.Taints) > 0 {
		tainted = "  [TAINTED: " + letters(s.Taints) + "]"
	}
	from := "symbols and types from the dump"
	switch {
	case s.noTypes:
		from = "symbols from the dump"
	case s.TypesFrom != "":
		from = "symbols from the dump, types from " + safe(s.TypesFrom)
	}
	t.Printf("      KERNEL: (%s)%s\n", from, tainted)
	t.Printf("    DUMPFILE: %s%s\n", s.Dump.Path, note)
	cpus := count(s.CPUsPresent)
	if off := s.CPUsPresent - s.CPUsOnline; off > 0 && s.CPUsOnline > 0 {
		cpus += fmt.Sprintf(" [OFFLINE: %d]", off)
	}
	date, up, load, memory := unknown, unknown, unknown, unknown
	if !s.CrashTime.IsZero() {
		date = s.CrashTime.Format(crashTimeLayout)
	}
	if s.Uptime > 0 {
		up = uptime(s.Uptime)
	}
	if s.Load != [3]float64{} || len(s.Problems) == 0 {
		load = fmt.Sprintf("%.2f, %.2f, %.2f", s.Load[0], s.Load[1], s.Load[2])
	}
	if s.MemoryBytes > 0 {
		memory = memorySize(s.MemoryBytes)
	}
	t.Printf("        CPUS: %s\n", cpus)
	t.Printf("        DATE: %s\n", date)
	t.Printf("      UPTIME: %s\n", up)
	t.Printf("LOAD AVERAGE: %s\n", load)
	t.Printf("       TASKS: %s\n", count(s.Tasks))
	t.Printf("    NODENAME: %s\n", name(s.UTS.Nodename))
	t.Printf("     RELEASE: %s\n", name(s.UTS.Release))
	t.Printf("     VERSION: %s\n", name(s.UTS.Version))
	t.Printf("     MACHINE: %s\n", name(s.UTS.Machine))
	t.Printf("      MEMORY: %s\n", memory)
	if s.Panic != "" {
		t.Printf("       PANIC: \"%s\"\n", safe(s.Panic))
	}
}

// unknown stands for what the dump does not say.
const unknown = "(unknown)"

func count(n int) string {
	if n == 0 {
		return unknown
	}
	return strconv.Itoa(n)
}

func name(s string) string {
	if s == "" {
		return unknown
	}
	return safe(s)
}

// uptime returns a time as crash writes it: "3 days, 04:05:06".
func uptime(d time.Duration) string {
	sec := int64(d / time.Second)
	s := fmt.Sprintf("%02d:%02d:%02d", sec/3600%24, sec/60%60, sec%60)
	switch days := sec / 86400; {
	case days == 1:
		return "1 day, " + s
	case days > 1:
		return fmt.Sprintf("%d days, %s", days, s)
	}
	return s
}

// memorySize returns a number of bytes as crash writes it: "511.5 MB", "8 GB".
func memorySize(n uint64) string {
	for _, u := range []struct {
		name string
		size uint64
	}{{"GB", 1 << 30}, {"MB", 1 << 20}, {"KB", 1 << 10}} {
		if n >= u.size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(u.size)), ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
