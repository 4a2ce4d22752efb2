package unwind

import (
	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
)

// How says in which way a frame was found.
type How string

// The ways to find a frame, best first.
const (
	Regs     How = "regs"          // from the registers the task or CPU stopped with
	ORC      How = "orc"           // by the kernel's unwind tables
	FP       How = "frame-pointer" // by the chain of saved RBP
	Prologue How = "prologue"      // by the code of a function without such data; the call of it was checked
	Scan     How = "scan"          // a word on the stack that looks like a return address
)

// Frame is one level of a stack.
type Frame struct {
	// Index counts the frames from 0, as crash's "#0" does. Exception frames,
	// which crash does not count, have -1.
	Index int `json:"index"`

	IP addr.Virt `json:"ip"`
	SP addr.Virt `json:"sp"` // the stack pointer when the instruction at IP was reached

	// At is the address of the word on the stack that holds IP, which crash
	// shows in brackets; of an exception frame that of its saved registers, a
	// struct pt_regs. It is 0 if IP comes from the registers of a CPU.
	At addr.Virt `json:"at"`

	Symbol string `json:"symbol"` // "" if no symbol covers IP
	Offset uint64 `json:"offset"` // of IP from the symbol's start
	Size   uint64 `json:"size"`   // of the symbol, in bytes
	Module string `json:"module"` // "" for the kernel itself

	How   How    `json:"how"`
	Stack string `json:"stack"` // the name of the stack that At, or else SP, is on, as in Stack.Name

	// Regs are the registers at IP, on exception frames only: those that an
	// exception or interrupt saved there. IP is then the instruction that was
	// interrupted, and not behind a call as in other frames.
	Regs *arch.Regs `json:"regs,omitempty"`
	// Partial says that of Regs only RIP, CS, EFlags, RSP and SS were saved.
	Partial bool `json:"partial,omitempty"`

	// Reliable says that no step up to this frame was a guess. A frame that is not
	// reliable may be left over from an earlier call.
	Reliable bool `json:"reliable"`
}

// Exception reports whether the frame is one that an exception or interrupt hit.
func (f *Frame) Exception() bool { return f.Regs != nil }

// Trace is an unwound stack.
type Trace struct {
	Task   addr.Virt `json:"task"`   // the task_struct; 0 if unknown
	Frames []Frame   `json:"frames"` // innermost first

	// User are the registers that the task had in user mode when it entered the
	// kernel; nil for a kernel thread, or if the stack could not be followed
	// that far.
	User *arch.Regs `json:"user,omitempty"`

	// Saved has RBX, RBP and R12 to R15 at the first frame, of a task that was switched
	// out; else it is nil.
	Saved *arch.Regs `json:"-"`
}

// Stack is a kernel stack, [Start, End).
type Stack struct {
	Name  string // "task", "irq", "entry" or that of an exception: "DF", "NMI", "DB", "MCE", "VC", "VC2"
	CPU   int    // that owns it, -1 for a task's
	Start addr.Virt
	End   addr.Virt
}

// Contains reports whether the n bytes at v lie on the stack.
func (s Stack) Contains(v addr.Virt, n uint64) bool {
	return v >= s.Start && v < s.End && uint64(s.End-v) >= n
}
