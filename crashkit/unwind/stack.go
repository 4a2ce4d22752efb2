package unwind

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// Sizes of stacks that no type and no symbol gives (THREAD_SIZE and
// IRQ_STACK_SIZE in arch/x86/include/asm/page_64_types.h).
const (
	defaultStackSize = 16 << 10
	maxStackSize     = 256 << 10
)

// taskStackSize returns THREAD_SIZE. It has no type in BTF, but the stack of the
// first task has that size, and so have those of interrupts.
func (u *Unwinder) taskStackSize() uint64 {
	for _, names := range [][2]string{
		{"__start_init_stack", "__end_init_stack"}, // since Linux commit 8f69cba096b5 (in v6.10)
		{"__start_init_task", "__end_init_task"},
	} {
		start, ok1 := u.p.Syms.Lookup(names[0])
		end, ok2 := u.p.Syms.Lookup(names[1])
		if n := uint64(end.Addr - start.Addr); ok1 && ok2 && n >= 4096 && n <= maxStackSize && n&(n-1) == 0 {
			return n
		}
	}
	return u.irqStackSize()
}

func (u *Unwinder) irqStackSize() uint64 {
	if t, err := u.p.Type("struct irq_stack"); err == nil && t.Size() >= 4096 && t.Size() <= maxStackSize {
		return t.Size()
	}
	return defaultStackSize
}

// findStacks returns the stacks of all CPUs, by address. The error says which
// could not be found.
func (u *Unwinder) findStacks() ([]Stack, error) {
	cpus, err := u.p.CPUs("__cpu_possible_mask")
	if err != nil {
		return nil, fmt.Errorf("find stacks: %w", err)
	}
	var stacks []Stack
	var errs []error
	for _, cpu := range cpus {
		if s, err := u.irqStack(cpu); err != nil {
			errs = append(errs, err)
		} else {
			stacks = append(stacks, s)
		}
		s, err := u.entryStacks(cpu)
		stacks = append(stacks, s...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	slices.SortFunc(stacks, func(a, b Stack) int { return cmp.Compare(a.Start, b.Start) })
	return stacks, errors.Join(errs...)
}

// perCPUPointer reads the per-cpu variable called name, a pointer, of one CPU.
func (u *Unwinder) perCPUPointer(name string, cpu int) (addr.Virt, error) {
	s, ok := u.p.Syms.Lookup(name)
	if !ok {
		return 0, fmt.Errorf("symbol %s: %w", name, ctype.ErrNotFound)
	}
	off, err := u.p.PerCPU(cpu)
	if err != nil {
		return 0, err
	}
	v, err := u.p.Uint64(s.Addr + off)
	return addr.Virt(v), err
}

// irqStack returns the stack that a CPU handles interrupts on.
func (u *Unwinder) irqStack(cpu int) (Stack, error) {
	var top addr.Virt
	var err error
	if hot := u.p.PerCPUObject("pcpu_hot", "struct pcpu_hot", cpu); hot.Err() == nil && hot.Has("hardirq_stack_ptr") {
		// Since Linux commit d7b6d709a76a ("x86/percpu: Move irq_stack variables
		// next to current_task") (in v6.2) until c6a0918072ea (in v6.15).
		top, err = hot.Member("hardirq_stack_ptr").Ptr()
	} else {
		top, err = u.perCPUPointer("hardirq_stack_ptr", cpu)
		if errors.Is(err, ctype.ErrNotFound) {
			// Until Linux commit 758a2e312228 ("x86/irq/64: Rename irq_stack_ptr
			// to hardirq_stack_ptr") (in v5.2).
			top, err = u.perCPUPointer("irq_stack_ptr", cpu)
		}
	}
	if err != nil {
		return Stack{}, err
	}
	if top == 0 {
		return Stack{}, fmt.Errorf("the IRQ stack of CPU %d is not set up", cpu)
	}
	// Since Linux commit 951c2a51ae75 ("x86/irq/64: Adjust the per CPU irq stack
	// pointer by 8") (in v5.12) the pointer is that of the topmost word.
	end := (top + 8) &^ 0xfff
	return Stack{Name: "irq", CPU: cpu, Start: end - addr.Virt(u.irqStackSize()), End: end}, nil
}

// exceptionStacks are the members of struct cea_exception_stacks
// (arch/x86/include/asm/cpu_entry_area.h, v6.1), which kernels built without
// CONFIG_AMD_MEM_ENCRYPT have the last two of without any size.
var exceptionStacks = []string{"DF", "NMI", "DB", "MCE", "VC", "VC2"}

// entryStacks returns the stacks of a CPU that lie in its struct cpu_entry_area:
// those that the processor switches to by itself, for some exceptions and on
// entry from user mode.
func (u *Unwinder) entryStacks(cpu int) ([]Stack, error) {
	at, err := u.perCPUPointer("cea_exception_stacks", cpu)
	if err != nil {
		return nil, err
	}
	if at == 0 {
		return nil, fmt.Errorf("the exception stacks of CPU %d are not set up", cpu)
	}
	var stacks []Stack
	add := func(name string, o ctype.Object) {
		if o.Err() == nil && o.Type().Size() > 0 && o.Type().Size() <= maxStackSize {
			stacks = append(stacks, Stack{Name: name, CPU: cpu, Start: o.Addr(), End: o.Addr() + addr.Virt(o.Type().Size())})
		}
	}
	estacks := u.p.ObjectAt(at, "struct cea_exception_stacks")
	if err := estacks.Err(); err != nil {
		return nil, err
	}
	for _, name := range exceptionStacks {
		if estacks.Has(name + "_stack") {
			add(name, estacks.Member(name+"_stack"))
		}
	}
	area, err := u.p.Type("struct cpu_entry_area")
	if err != nil {
		return stacks, err
	}
	cea := estacks.ContainerOf(area, "estacks")
	if err := cea.Err(); err != nil {
		return stacks, err
	}
	add("entry", cea.Member("entry_stack_page.stack"))
	return stacks, nil
}

func word(b []byte) addr.Virt { return addr.Virt(binary.LittleEndian.Uint64(b)) }
