package kernel

import (
	"errors"
	"fmt"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/dump"
)

// Taint is one reason why a kernel or a module counts as tainted
// (Documentation/admin-guide/tainted-kernels.rst).
type Taint struct {
	Bit    int    `json:"bit"`
	Letter string `json:"letter"`
	Name   string `json:"name"` // the macro without TAINT_: "OOT_MODULE"
}

// taintTable has the names, which are macros and so not in the dump, and the
// letters, which count where the dump has none (include/linux/panic.h, v7.1).
var taintTable = []Taint{
	{0, "P", "PROPRIETARY_MODULE"}, {1, "F", "FORCED_MODULE"}, {2, "S", "CPU_OUT_OF_SPEC"},
	{3, "R", "FORCED_RMMOD"}, {4, "M", "MACHINE_CHECK"}, {5, "B", "BAD_PAGE"}, {6, "U", "USER"},
	{7, "D", "DIE"}, {8, "A", "OVERRIDDEN_ACPI_TABLE"}, {9, "W", "WARN"}, {10, "C", "CRAP"},
	{11, "I", "FIRMWARE_WORKAROUND"}, {12, "O", "OOT_MODULE"}, {13, "E", "UNSIGNED_MODULE"},
	{14, "L", "SOFTLOCKUP"}, {15, "K", "LIVEPATCH"}, {16, "X", "AUX"}, {17, "T", "RANDSTRUCT"},
	{18, "N", "TEST"}, {19, "J", "FWCTL"},
}

// taintFlags returns the taints that the kernel knows, by bit, with its letters:
// taint_flags[] (kernel/panic.c).
func taintFlags(p *crashkit.Program) []Taint {
	s, ok := p.Syms.Lookup("taint_flags")
	t, err := p.Type("struct taint_flag")
	if !ok || err != nil || t.Size() == 0 {
		return taintTable
	}
	var flags []Taint
	for i := range int(min(s.Size/t.Size(), 64)) {
		o := ctype.NewObject(p, t, s.Addr+addr.Virt(uint64(i)*t.Size()), "taint_flags")
		c, err := o.Member("c_true").Uint()
		if err != nil {
			return taintTable
		}
		if c < 'A' || c > 'Z' {
			break // padding behind the table
		}
		name := fmt.Sprintf("BIT_%d", i)
		if i < len(taintTable) {
			name = taintTable[i].Name
		}
		flags = append(flags, Taint{i, string(rune(c)), name})
	}
	if len(flags) == 0 {
		return taintTable
	}
	return flags
}

// taintsOf returns the taints of a mask, by bit.
func taintsOf(mask uint64, flags []Taint) []Taint {
	taints := []Taint{}
	for bit := range 64 {
		switch {
		case mask>>bit&1 == 0:
		case bit < len(flags):
			taints = append(taints, flags[bit])
		default:
			taints = append(taints, Taint{bit, "?", fmt.Sprintf("BIT_%d", bit)})
		}
	}
	return taints
}

// Taints returns why the kernel counts as tainted, by bit; empty if it does not.
func Taints(p *crashkit.Program) ([]Taint, error) {
	mask, err := p.Object("tainted_mask").Uint()
	if err != nil {
		return nil, err
	}
	return taintsOf(mask, taintFlags(p)), nil
}

// PanicCPU returns the CPU that brought the kernel down, and false if none did:
// a dump of a hung or a live machine.
func PanicCPU(p *crashkit.Program) (cpu int, ok bool, err error) {
	var e Problems
	for _, o := range []ctype.Object{
		p.Object("panic_cpu"),    // set by panic() and crash_kexec()
		p.Object("crashing_cpu"), // set where x86 stops the other CPUs
	} {
		v, err := o.Int()
		switch {
		case errors.Is(err, ctype.ErrNotFound):
		case err != nil:
			e.note(err)
		case v >= 0:
			return int(v), true, nil
		}
	}
	return 0, false, e.Err()
}

// CPU is the state of one processor when it stopped.
type CPU struct {
	CPU    int        `json:"cpu"`
	Task   addr.Virt  `json:"task"`            // its current task_struct; 0 if unknown
	PID    int        `json:"pid"`             // as its note has it; -1 without a note
	Regs   *arch.Regs `json:"regs,omitempty"`  // nil if the dump has none: it was offline or did not stop
	Source string     `json:"source"`          // of Regs: "crash_notes" or "QEMU"
	Panic  bool       `json:"panic,omitempty"` // it brought the kernel down

	Problems Problems `json:"problems,omitempty"`
}

// CPUs returns the possible CPUs, ascending, with the registers they had when
// the dump was made.
//
// The order of the notes of a dump is not that of the CPUs, so the registers
// come from where each CPU left its own when it stopped: the per-cpu crash_notes
// of kexec. A CPU that left none has them in a dump by QEMU, which numbers its
// notes. In this order, because QEMU has what the machine did when it was dumped:
// if a capture kernel ran by then, its registers.
func CPUs(p *crashkit.Program) ([]CPU, error) {
	ids, err := p.CPUs("__cpu_possible_mask")
	if err != nil {
		return nil, fmt.Errorf("CPUs: %w", err)
	}
	panicCPU, panicked, _ := PanicCPU(p) // an error there only leaves the mark out
	qemu := qemuNotes(p.Image)
	notes, nerr := crashNotes(p)
	cpus := make([]CPU, len(ids))
	for i, id := range ids {
		c := CPU{CPU: id, PID: -1, Panic: panicked && id == panicCPU}
		if !p.Types.IsEmpty() {
			c.Task = c.Problems.ptr(p.PerCPUObject("runqueues", "struct rq", id).Member("curr"))
		}
		s, ok, err := dump.PRStatus{}, false, nerr
		if nerr == nil {
			s, ok, err = notes.read(id)
		}
		q, byQEMU := qemu[id]
		switch {
		case ok:
			c.setNote(s, "crash_notes")
		case byQEMU:
			c.setNote(q, "QEMU")
			c.PID = -1 // QEMU writes no PID there
		default:
			c.Problems.note(err)
		}
		cpus[i] = c
	}
	return cpus, nil
}

func (c *CPU) setNote(s dump.PRStatus, source string) {
	r, err := arch.DecodeRegs(s.Raw[min(prRegs, len(s.Raw)):])
	if err != nil {
		c.Problems.note(err)
		return
	}
	c.PID, c.Regs, c.Source = s.PID, &r, source
}

// Offsets in struct elf_prstatus of a 64-bit machine (include/linux/elfcore.h,
// v6.1), in bytes.
const (
	prPID  = 32
	prRegs = 112
)

// qemuNotes returns the registers in a dump by QEMU, by CPU; empty for others.
func qemuNotes(img *dump.Image) map[int]dump.PRStatus {
	byQEMU := false
	for _, n := range img.Notes() {
		byQEMU = byQEMU || n.Name == "QEMU"
	}
	if !byQEMU {
		return nil
	}
	all := make(map[int]dump.PRStatus)
	for _, s := range img.PRStatus() {
		all[s.PID-1] = s // QEMU stores the CPU's number plus one
	}
	return all
}

// crashNoteBuf is where kexec's crash path leaves registers: kernel/crash_core.c.
type crashNoteBuf struct {
	p    *crashkit.Program
	base addr.Virt // per-cpu pointer
	size uint64
}

// maxNote bounds the size of note_buf_t, some 370 bytes on x86-64; minNote is what an
// NT_PRSTATUS with its header and the end behind it has.
const (
	maxNote = 4096
	minNote = 20 + 336 + 12
)

func crashNotes(p *crashkit.Program) (crashNoteBuf, error) {
	s, ok := p.Syms.Lookup("crash_notes")
	if !ok {
		return crashNoteBuf{}, fmt.Errorf("symbol crash_notes: %w", ctype.ErrNotFound)
	}
	v, err := p.Uint64(s.Addr)
	if err != nil {
		return crashNoteBuf{}, fmt.Errorf("crash_notes: %w", err)
	}
	if v == 0 {
		return crashNoteBuf{}, errors.New("crash_notes is NULL: no memory for them")
	}
	n := crashNoteBuf{p, addr.Virt(v), minNote}
	if t, err := p.Type("note_buf_t"); err == nil {
		n.size = min(t.Size(), maxNote)
	}
	return n, nil
}

// read returns the note of a CPU; ok is false if it left none.
func (n crashNoteBuf) read(cpu int) (s dump.PRStatus, ok bool, err error) {
	off, err := n.p.PerCPU(cpu)
	if err != nil {
		return s, false, err
	}
	b := make([]byte, n.size)
	if err := n.p.Read(n.base+off, b); err != nil {
		return s, false, fmt.Errorf("crash_notes of CPU %d: %w", cpu, err)
	}
	notes, err := dump.ParseNotes(b)
	if err != nil {
		return s, false, fmt.Errorf("crash_notes of CPU %d: %w", cpu, err)
	}
	for _, note := range notes {
		if note.Name == "CORE" && note.Type == 1 && len(note.Desc) >= prRegs { // NT_PRSTATUS
			return dump.PRStatus{PID: int(int32(le64(note.Desc[prPID:]))), Raw: note.Desc}, true, nil
		}
	}
	return s, false, nil
}
