package crashkit

import (
	"fmt"
	"math/bits"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// maxCPUs bounds NR_CPUS; distributions use 8192.
const maxCPUs = 64 << 10

// CPUs returns the numbers of the CPUs in a cpumask, such as "__cpu_online_mask"
// (include/linux/cpumask.h), ascending. A mask is an array of words, so no types
// are asked.
func (p *Program) CPUs(mask string) ([]int, error) {
	s, ok := p.Syms.Lookup(mask)
	if !ok {
		return nil, fmt.Errorf("symbol %s: %w", mask, ctype.ErrNotFound)
	}
	n := int(min(s.Size/8, maxCPUs/64)) // what follows it may be padding
	if t, err := p.Type("struct cpumask"); err == nil {
		n = int(min(t.Size()/8, maxCPUs/64))
	}
	if ids, err := p.Object("nr_cpu_ids").Uint(); err == nil && ids > 0 {
		n = min(n, int(min(ids, maxCPUs)+63)/64)
	}
	var cpus []int
	for i := range n {
		w, err := p.Uint64(s.Addr + addr.Virt(8*i))
		if err != nil {
			return cpus, fmt.Errorf("%s: %w", mask, err)
		}
		for ; w != 0; w &= w - 1 {
			cpus = append(cpus, i*64+bits.TrailingZeros64(w))
		}
	}
	return cpus, nil
}

// PerCPU returns what is added to a per-cpu symbol's address to get that
// variable of one CPU: __per_cpu_offset[cpu], 0 in a kernel built without SMP.
func (p *Program) PerCPU(cpu int) (addr.Virt, error) {
	s, ok := p.Syms.Lookup("__per_cpu_offset")
	if !ok {
		if cpu == 0 {
			return 0, nil
		}
		return 0, fmt.Errorf("symbol __per_cpu_offset: %w", ctype.ErrNotFound)
	}
	if cpu < 0 || cpu >= maxCPUs {
		return 0, fmt.Errorf("CPU %d: no such CPU", cpu)
	}
	v, err := p.Uint64(s.Addr + addr.Virt(8*cpu))
	return addr.Virt(v), err
}

// PerCPUObject returns a CPU's instance of the per-cpu variable called name, as
// an object of the named type.
func (p *Program) PerCPUObject(name, typ string, cpu int) ctype.Object {
	o := p.ObjectAs(name, typ)
	if o.Err() != nil {
		return o
	}
	off, err := p.PerCPU(cpu)
	if err != nil {
		return ctype.Failed(name, err)
	}
	return ctype.NewObject(p, o.Type(), o.Addr()+off, fmt.Sprintf("%s[cpu %d]", name, cpu))
}
