package wire

import (
	"encoding/json"
	"fmt"
	"time"
)

// Stage is which of the two kernels an event comes from.
type Stage string

// The stages.
const (
	StageFirst   Stage = "first"   // the kernel that is to crash
	StageCapture Stage = "capture" // the kernel that saves its memory
)

// EventKind says what an event reports.
type EventKind string

// The kinds of Event.
const (
	EventHello    EventKind = "hello"    // the agent runs
	EventPhase    EventKind = "phase"    // the phase in Name begins
	EventArmed    EventKind = "armed"    // a crash will start the capture kernel; CrashSize is set
	EventTrigger  EventKind = "trigger"  // the next thing is the crash
	EventProgress EventKind = "progress" // Bytes of Total captured
	EventMeasured EventKind = "measured" // Measured is set
	EventDone     EventKind = "done"     // the stage is complete and the machine ends
	EventError    EventKind = "error"    // Text says what went wrong in the phase in Name; the machine ends
)

// The phases, in order. Truth and arm overlap.
const (
	PhaseMount    = "mount"    // mount proc and sys, read the job
	PhaseModules  = "modules"  // load kernel modules
	PhaseWorkload = "workload" // start the processes that give ps something to show
	PhaseArm      = "arm"      // load the capture kernel
	PhaseTruth    = "truth"    // record the guest's own view of itself
	PhaseTrigger  = "trigger"  // crash
	PhaseMeasure  = "measure"  // measure instead of crashing
	PhaseDisk     = "disk"     // find the disk to write to
	PhaseCopy     = "copy"     // write the crashed kernel's memory to it
	PhaseEnd      = "end"      // end the machine
)

// Event is one report of the agent.
type Event struct {
	Kind   EventKind `json:"kind"`
	Stage  Stage     `json:"stage"`
	Seq    int       `json:"seq"`    // 1, 2, 3… in each stage: a gap is a frame lost on the line
	Uptime float64   `json:"uptime"` // seconds since this kernel started
	Name   string    `json:"name,omitempty"`
	Text   string    `json:"text,omitempty"`
	Errno  int       `json:"errno,omitempty"` // of EventError, where a system call caused it

	CrashSize uint64 `json:"crash_size,omitempty"` // bytes reserved for the capture kernel

	Bytes uint64 `json:"bytes,omitempty"` // of the memory seen so far
	Total uint64 `json:"total,omitempty"` // of the memory in all
	Data  uint64 `json:"data,omitempty"`  // of the memory that was not zero and was sent

	Measured *Measured `json:"measured,omitempty"`

	MemTotal uint64 `json:"mem_total,omitempty"` // bytes that this kernel manages
	MemPeak  uint64 `json:"mem_peak,omitempty"`  // bytes of MemTotal in use at the worst moment seen
}

// Measured is what was measured for TriggerMeasure or TriggerClock.
type Measured struct {
	// BeforeKernel is how long the machine ran before the kernel's clock started:
	// its firmware, the loading and the unpacking of the kernel.
	BeforeKernel time.Duration `json:"before_kernel,omitempty"`

	Wakeups  int           `json:"wakeups"`
	Median   time.Duration `json:"median"` // of how late a wake-up was
	P99      time.Duration `json:"p99"`    // 99 of 100 were not later
	Worst    time.Duration `json:"worst"`
	Work     uint64        `json:"work"`     // bytes of /proc/kallsyms read beside it
	Duration time.Duration `json:"duration"` // in which that was done
}

// maxText keeps an event inside one frame.
const maxText = 8 << 10

// AppendEvent appends e as a frame to dst.
func AppendEvent(dst []byte, e Event) ([]byte, error) {
	if len(e.Text) > maxText {
		e.Text = e.Text[:maxText] + "…"
	}
	payload, err := json.Marshal(e)
	if err != nil {
		return dst, fmt.Errorf("encode %s event: %w", e.Kind, err)
	}
	return appendFrame(dst, payload)
}
