package unwind

import (
	"encoding/binary"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
)

// FuzzWalk walks stacks of any content by entries of any content: 8 bytes of the
// input each, first some entries, then words of the stack. Words that are small
// become return addresses or places on the stack, so that walks get somewhere.
func FuzzWalk(f *testing.F) {
	f.Add(true, []byte("\x20\x00\x00\x00\x05\x02\x00\x00"), []byte("\x01\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(true, []byte("\x00\x00\x00\x00\x09\x02\x00\x00"), []byte("\x00\x01\x00\x00\x00\x00\x00\x00"))
	f.Add(false, []byte{}, []byte("\x00\x01\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, orc bool, entries, words []byte) {
		m := newFake(make([]orcEntry, min(len(entries)/8+1, 16))...)
		for i := range min(len(entries)/8, 16) {
			m.put(tableORCs+addr.Virt(orcEntrySize*i), entries[8*i:8*i+orcEntrySize]...)
			m.table.format = orcFormat(entries[7]&3) + orcV1
		}
		if !orc {
			m.table = nil
		}
		irq := Stack{Name: "irq", Start: stackBase + 0x10000, End: stackBase + 0x10100}
		m.addStack(irq)
		for i := range min(len(words)/8, 256) {
			v := addr.Virt(binary.LittleEndian.Uint64(words[8*i:]))
			switch {
			case v < 16:
				v = in(int(v))
			case v < 0x800:
				v += sp0
			case v < 0x900:
				v += irq.Start - 0x800
			}
			m.word(sp0+addr.Virt(8*i), v)
			m.word(irq.Start+addr.Virt(8*(i%32)), v)
		}
		r := arch.Regs{RIP: uint64(in(0)), RSP: uint64(sp0), RBP: uint64(sp0 + 0x10), CS: kernelCS}
		got, _, err := m.walk(t, fromRegs(r))
		if len(got) > maxFrames+stackSize/8 {
			t.Errorf("walk found %d frames, error %v", len(got), err)
		}
	})
}
