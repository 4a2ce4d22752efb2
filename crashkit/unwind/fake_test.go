package unwind

import (
	"encoding/binary"
	"slices"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
)

// fake is a machine made by hand. Its addresses look like a kernel's.
type fake struct {
	mem     map[addr.Virt]byte
	table   *orcTable
	text    []textRange // each is one function
	stacks  []Stack
	tracers map[addr.Virt]addr.Virt // what the trampoline at a slot replaced
	fp      bool
}

const (
	textBase  addr.Virt = 0xffffffff81000000
	fnSize              = 0x100
	tableIPs  addr.Virt = 0xffffffff82000000
	tableORCs addr.Virt = 0xffffffff82800000
	stackBase addr.Virt = 0xffffc90000000000
	stackSize           = 0x4000
)

// fn returns the start of function i, which newFake has declared.
func fn(i int) addr.Virt { return textBase + addr.Virt(i*fnSize) }

// in returns an address in function i behind a call.
func in(i int) addr.Virt { return fn(i) + 0x40 }

// newFake returns a machine with a function for each of the entries, which holds
// for all of it, and a task stack of which every word is 0.
func newFake(entries ...orcEntry) *fake {
	f := &fake{mem: make(map[addr.Virt]byte), tracers: make(map[addr.Virt]addr.Virt)}
	f.table = &orcTable{mem: f, ips: tableIPs, orcs: tableORCs, n: len(entries), format: orcV3}
	for i, e := range entries {
		f.text = append(f.text, textRange{fn(i), fn(i + 1)})
		for off := range addr.Virt(fnSize) {
			f.mem[fn(i)+off] = 0x90
		}
		f.put(in(i)-2, 0xff, 0xd0) // call *%rax
		at := tableIPs + addr.Virt(orcIPSize*i)
		f.put(at, binary.LittleEndian.AppendUint32(nil, uint32(fn(i)-at))...)
		raw := encodeV3(e)
		f.put(tableORCs+addr.Virt(orcEntrySize*i), raw[:]...)
	}
	f.addStack(f.own())
	return f
}

// encodeV3 writes an entry as objtool of v6.4 does.
func encodeV3(e orcEntry) (b [orcEntrySize]byte) {
	regs := map[orcReg]byte{
		regUndefined: 0, regPrevSP: 1, regDX: 2, regDI: 3, regBP: 4, regSP: 5, regR10: 6, regR13: 7,
		regBPIndirect: 8, regSPIndirect: 9, regAX: 10,
	}
	types := map[orcType]byte{orcUndefined: 0, orcEnd: 1, orcCall: 2, orcRegsFull: 3, orcRegsPartial: 4}
	binary.LittleEndian.PutUint16(b[0:], uint16(e.spOff))
	binary.LittleEndian.PutUint16(b[2:], uint16(e.bpOff))
	b[4] = regs[e.spReg] | regs[e.bpReg]<<4
	b[5] = types[e.typ]
	if e.signal {
		b[5] |= 8
	}
	return b
}

func (f *fake) own() Stack {
	return Stack{Name: "task", CPU: -1, Start: stackBase, End: stackBase + stackSize}
}

// addStack makes a stack's memory readable.
func (f *fake) addStack(s Stack) {
	for v := s.Start; v < s.End; v++ {
		f.mem[v] = 0
	}
	if s != f.own() {
		f.stacks = append(f.stacks, s)
	}
}

func (f *fake) put(v addr.Virt, b ...byte) {
	for i, c := range b {
		f.mem[v+addr.Virt(i)] = c
	}
}

func (f *fake) word(v, value addr.Virt) {
	f.put(v, binary.LittleEndian.AppendUint64(nil, uint64(value))...)
}

// regs puts a struct pt_regs at v.
func (f *fake) regs(v addr.Virt, r arch.Regs) {
	for i, x := range []uint64{
		r.R15, r.R14, r.R13, r.R12, r.RBP, r.RBX, r.R11, r.R10, r.R9, r.R8, r.RAX,
		r.RCX, r.RDX, r.RSI, r.RDI, r.OrigAX, r.RIP, r.CS, r.EFlags, r.RSP, r.SS,
	} {
		f.word(v+addr.Virt(8*i), addr.Virt(x))
	}
}

func (f *fake) Read(v addr.Virt, b []byte) error {
	for i := range b {
		c, ok := f.mem[v+addr.Virt(i)]
		if !ok {
			return &addr.Fault{Virt: v + addr.Virt(i), HasVirt: true, Reason: addr.NotMapped}
		}
		b[i] = c
	}
	return nil
}

func (f *fake) orc(ip addr.Virt) (orcEntry, error) {
	if !f.isText(ip) {
		return orcEntry{}, errNoORC
	}
	return f.table.find(ip)
}

func (f *fake) hasORC() bool { return f.table != nil }

func (f *fake) keepsFP() bool { return f.fp }

func (f *fake) isText(v addr.Virt) bool {
	_, ok := f.function(v)
	return ok
}

func (f *fake) function(v addr.Virt) (addr.Virt, bool) {
	for _, r := range f.text {
		if v >= r.start && v < r.end {
			return r.start, true
		}
	}
	return 0, false
}

func (f *fake) isReturn(v addr.Virt) bool {
	var b [7]byte
	return f.isText(v) && f.Read(v-7, b[:]) == nil && followsCall(b[:])
}

func (f *fake) calls(v, fn addr.Virt) bool {
	var b [5]byte
	return f.isText(v) && f.Read(v-5, b[:]) == nil && isCallOf(b, v, fn)
}

func (f *fake) original(_, v, slot addr.Virt) addr.Virt {
	if o, ok := f.tracers[slot]; ok {
		return o
	}
	return v
}

func (f *fake) stackAt(v addr.Virt) (Stack, bool) {
	i := slices.IndexFunc(f.stacks, func(s Stack) bool { return s.Contains(v, 1) })
	if i < 0 {
		return Stack{}, false
	}
	return f.stacks[i], true
}

// level is what the tests look at of a frame.
type level struct {
	IP, SP  addr.Virt
	How     How
	Stack   string
	Regs    bool
	Partial bool
	Guessed bool
}

// walk follows the stack of f's task from s on.
func (f *fake) walk(t *testing.T, s state) ([]level, *arch.Regs, error) {
	t.Helper()
	w := newWalker(f, 0, f.own())
	levels := []level{}
	user, err := w.walk(s, func(s state) {
		levels = append(levels, level{s.ip, s.sp, s.how, w.stackName(s.sp), s.regs != nil, s.partial, s.guessed})
	})
	return levels, user, err
}
