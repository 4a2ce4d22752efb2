package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// JobPath is where the agent expects its job in the initramfs.
const JobPath = "/job.json"

// Job is what the agent is to do. Exactly one of First and Capture is set.
type Job struct {
	Modules []Module    `json:"modules,omitempty"` // loaded first, in this order
	First   *FirstJob   `json:"first,omitempty"`   // in the kernel that is to crash
	Capture *CaptureJob `json:"capture,omitempty"` // in the kernel that saves the memory
}

// Module is a kernel module in the initramfs, not compressed.
type Module struct {
	Path   string `json:"path"`
	Params string `json:"params,omitempty"` // "name=value name=value"
}

// FirstJob is the agent's job in the kernel that is to crash, done in the order
// of the fields.
type FirstJob struct {
	Workload []Worker   `json:"workload,omitempty"`
	Kexec    *Kexec     `json:"kexec,omitempty"` // nil: no capture kernel is armed
	Truth    *TruthSpec `json:"truth,omitempty"` // nil: nothing is recorded
	Trigger  Trigger    `json:"trigger"`
}

// Kexec names the capture kernel and its initramfs, files of the first one.
type Kexec struct {
	Kernel       string `json:"kernel"`
	Initrd       string `json:"initrd"`
	Cmdline      string `json:"cmdline"`
	MinCrashSize uint64 `json:"min_crash_size,omitempty"` // bytes that crashkernel= must have reserved
}

// TruthSpec lists what the guest records about itself before the trigger. The
// files appear in the archive under their paths without the leading slash. A
// file that cannot be read is named in the archive's member "errors".
type TruthSpec struct {
	Files   []string `json:"files,omitempty"`   // absolute paths
	Process []string `json:"process,omitempty"` // files of each /proc/PID; "fd" stands for the links in it
	Thread  []string `json:"thread,omitempty"`  // files of each /proc/PID/task/TID
}

// DefaultTruth is what an analyzer of the dump can be compared with.
func DefaultTruth() *TruthSpec {
	return &TruthSpec{
		Files: []string{
			"/proc/kallsyms", "/proc/modules", "/proc/iomem", "/proc/version", "/proc/cmdline", "/proc/mounts",
			"/proc/vmallocinfo", "/proc/interrupts", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/slabinfo",
			"/proc/swaps", "/proc/cpuinfo", "/proc/filesystems", "/proc/devices",
		},
		Process: []string{"status", "stat", "cmdline", "maps", "fd"},
		Thread:  []string{"status", "stat", "stack"},
	}
}

// WorkerKind is what a process of the workload does for ever.
type WorkerKind string

// The kinds of Worker, with the state that ps shows for them.
const (
	Nanosleep WorkerKind = "nanosleep" // S, in nanosleep(2)
	PipeRead  WorkerKind = "pipe"      // S, reading an empty pipe
	Zombie    WorkerKind = "zombie"    // Z, exited and not waited for
	Stopped   WorkerKind = "stopped"   // T, stopped by a signal
	Spin      WorkerKind = "spin"      // R, takes one CPU
	Thread    WorkerKind = "thread"    // S, a thread of the agent itself in nanosleep(2)
)

// Worker is one process, or thread, of the workload.
type Worker struct {
	Name string     `json:"name"` // its comm, at most 15 bytes
	Kind WorkerKind `json:"kind"`
}

// DefaultWorkload has one process of each kind that costs nothing.
func DefaultWorkload() []Worker {
	return []Worker{
		{"lab-sleep", Nanosleep}, {"lab-pipe", PipeRead}, {"lab-zombie", Zombie}, {"lab-stopped", Stopped}, {"lab-thread", Thread},
	}
}

// TriggerKind says how the crash is caused.
type TriggerKind string

// The kinds of Trigger.
const (
	TriggerModule  TriggerKind = "module"  // load a module that crashes
	TriggerSysRq   TriggerKind = "sysrq"   // write c to /proc/sysrq-trigger
	TriggerNMI     TriggerKind = "nmi"     // wait for an NMI, which the host sends
	TriggerExit    TriggerKind = "exit"    // no crash: report done and end the machine
	TriggerOff     TriggerKind = "off"     // the same, by switching it off and not by a reset
	TriggerClock   TriggerKind = "clock"   // no crash: report when the kernel's clock started and end the machine
	TriggerMeasure TriggerKind = "measure" // no crash: measure, report and end the machine
)

// TriggerComm is the name of the process in which the trigger runs.
const TriggerComm = "trigger"

// Trigger is the crash.
type Trigger struct {
	Kind   TriggerKind `json:"kind"`
	Module Module      `json:"module,omitzero"` // for TriggerModule
	// Sysctl are set right before, by name as in "kernel.panic_on_warn": how the
	// kernel is to react. Set any earlier, they would act on the recording too.
	Sysctl  map[string]string `json:"sysctl,omitempty"`
	Measure Measure           `json:"measure,omitzero"` // for TriggerMeasure
	Timeout time.Duration     `json:"timeout,omitzero"` // after which "it did not crash" is reported; 0 means 30 s
}

// Measure says how wake-ups are measured.
type Measure struct {
	Period   time.Duration `json:"period"` // from one wake-up to the next
	Duration time.Duration `json:"duration"`
}

// CaptureJob is the agent's job in the capture kernel.
type CaptureJob struct {
	Disk string `json:"disk"` // virtio serial number of the disk to write to
}

// ParseJob decodes and checks the text of a job.
func ParseJob(text []byte) (*Job, error) {
	var j Job
	if err := json.Unmarshal(text, &j); err != nil {
		return nil, fmt.Errorf("parse job: %w", err)
	}
	if err := j.Check(); err != nil {
		return nil, fmt.Errorf("parse job: %w", err)
	}
	return &j, nil
}

// Check reports what is missing from j or contradicts itself.
func (j *Job) Check() error {
	for _, m := range j.Modules {
		if m.Path == "" {
			return errors.New("a module has no path")
		}
	}
	switch {
	case (j.First == nil) == (j.Capture == nil):
		return errors.New("want exactly one of first and capture")
	case j.Capture != nil && j.Capture.Disk == "":
		return errors.New("capture has no disk")
	case j.Capture != nil:
		return nil
	}
	for _, w := range j.First.Workload {
		switch w.Kind {
		case Nanosleep, PipeRead, Zombie, Stopped, Spin, Thread:
		default:
			return fmt.Errorf("worker %q: unknown kind %q", w.Name, w.Kind)
		}
		if w.Name == "" || len(w.Name) > 15 {
			return fmt.Errorf("worker name %q: want 1 to 15 bytes", w.Name)
		}
	}
	if k := j.First.Kexec; k != nil && (k.Kernel == "" || k.Initrd == "") {
		return errors.New("kexec has no kernel or no initrd")
	}
	switch t := j.First.Trigger; t.Kind {
	case TriggerModule:
		if t.Module.Path == "" {
			return errors.New("trigger has no module")
		}
	case TriggerMeasure:
		if t.Measure.Period <= 0 || t.Measure.Duration < t.Measure.Period {
			return fmt.Errorf("measure for %v in periods of %v: want at least one period", t.Measure.Duration, t.Measure.Period)
		}
	case TriggerSysRq, TriggerNMI, TriggerExit, TriggerOff, TriggerClock:
	default:
		return fmt.Errorf("unknown trigger kind %q", t.Kind)
	}
	return nil
}
