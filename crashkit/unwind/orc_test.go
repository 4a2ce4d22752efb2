package unwind

import (
	"encoding/binary"
	"errors"
	"testing"

	"crashlab/crashkit/addr"
)

func TestORCDecode(t *testing.T) {
	for _, test := range []struct {
		name   string
		format orcFormat
		raw    [orcEntrySize]byte
		want   orcEntry
	}{
		// As the bytes stand in the data of Debian's 6.1 kernel.
		{"orc_fp_entry", orcV1, [6]byte{0x10, 0x00, 0xf0, 0xff, 0x14, 0x00},
			orcEntry{spReg: regBP, spOff: 16, bpReg: regPrevSP, bpOff: -16, typ: orcCall}},
		{"null_orc_entry", orcV1, [6]byte{0x08, 0x00, 0x00, 0x00, 0x05, 0x00},
			orcEntry{spReg: regSP, spOff: 8, typ: orcCall}},
		{"entry_SYSCALL_64", orcV1, [6]byte{0, 0, 0, 0, 0x00, 0x04}, orcEntry{typ: orcEnd}},
		{"asm_exc_page_fault", orcV1, [6]byte{0x08, 0, 0, 0, 0x05, 0x02},
			orcEntry{spReg: regSP, spOff: 8, typ: orcRegsPartial, signal: true}},

		{"v1 undefined", orcV1, [6]byte{}, orcEntry{typ: orcUndefined}},
		{"v1 regs", orcV1, [6]byte{0, 0, 0, 0, 0x05, 0x01}, orcEntry{spReg: regSP, typ: orcRegsFull, signal: true}},
		{"v1 type 3", orcV1, [6]byte{0, 0, 0, 0, 0x05, 0x03}, orcEntry{spReg: regSP, typ: orcInvalid}},
		{"v2 signal", orcV2, [6]byte{0, 0, 0, 0, 0x05, 0x05}, orcEntry{spReg: regSP, typ: orcRegsFull, signal: true}},
		{"v2 no signal", orcV2, [6]byte{0, 0, 0, 0, 0x05, 0x01}, orcEntry{spReg: regSP, typ: orcRegsFull}},
		{"v2 end", orcV2, [6]byte{0, 0, 0, 0, 0x00, 0x08}, orcEntry{typ: orcEnd}},
		{"v3 undefined", orcV3, [6]byte{}, orcEntry{typ: orcUndefined}},
		{"v3 end", orcV3, [6]byte{0, 0, 0, 0, 0, 0x01}, orcEntry{typ: orcEnd}},
		{"v3 call", orcV3, [6]byte{0x40, 0x00, 0xe0, 0xff, 0x15, 0x02}, orcEntry{spReg: regSP, spOff: 64, bpReg: regPrevSP, bpOff: -32, typ: orcCall}},
		{"v3 regs signal", orcV3, [6]byte{0, 0, 0, 0, 0x05, 0x0b}, orcEntry{spReg: regSP, typ: orcRegsFull, signal: true}},
		{"v3 partial", orcV3, [6]byte{0, 0, 0, 0, 0x05, 0x0c}, orcEntry{spReg: regSP, typ: orcRegsPartial, signal: true}},
		{"v3 type 5", orcV3, [6]byte{0, 0, 0, 0, 0x05, 0x05}, orcEntry{spReg: regSP, typ: orcInvalid}},
		{"v3 sp indirect", orcV3, [6]byte{8, 0, 0, 0, 0x09, 0x02}, orcEntry{spReg: regSPIndirect, spOff: 8, typ: orcCall}},
		{"v3 bp indirect", orcV3, [6]byte{8, 0, 0, 0, 0x08, 0x02}, orcEntry{spReg: regBPIndirect, spOff: 8, typ: orcCall}},
		{"v3 ax", orcV3, [6]byte{0, 0, 0, 0, 0x0a, 0x02}, orcEntry{spReg: regAX, typ: orcCall}},
		{"v3 register 11", orcV3, [6]byte{0, 0, 0, 0, 0x0b, 0x02}, orcEntry{spReg: regInvalid, typ: orcCall}},
		{"v4 call", orcV4, [6]byte{0x40, 0x00, 0xe0, 0xff, 0x83, 0x02}, orcEntry{spReg: regSP, spOff: 64, bpReg: regPrevSP, bpOff: -32, typ: orcCall}},
		{"v4 fp", orcV4, [6]byte{0x10, 0x00, 0xf0, 0xff, 0x84, 0x02}, orcEntry{spReg: regBP, spOff: 16, bpReg: regPrevSP, bpOff: -16, typ: orcCall}},
		{"v4 ax", orcV4, [6]byte{0, 0, 0, 0, 0x01, 0x02}, orcEntry{spReg: regAX, typ: orcCall}},
		{"v4 bp indirect", orcV4, [6]byte{0, 0, 0, 0, 0x0a, 0x02}, orcEntry{spReg: regBPIndirect, typ: orcCall}},
	} {
		if got := test.format.decode(test.raw); got != test.want {
			t.Errorf("%s: decode(%x) = %+v; want %+v", test.name, test.raw, got, test.want)
		}
	}
}

func TestORCFind(t *testing.T) {
	const base = textBase
	// Where two start at one address, the first only ends the section before.
	starts := []addr.Virt{base, base + 0x10, base + 0x10, base + 0x30}
	f := &fake{mem: make(map[addr.Virt]byte)}
	table := &orcTable{mem: f, ips: tableIPs, orcs: tableORCs, n: len(starts), format: orcV3}
	for i, start := range starts {
		at := tableIPs + addr.Virt(orcIPSize*i)
		f.put(at, binary.LittleEndian.AppendUint32(nil, uint32(start-at))...)
		raw := encodeV3(orcEntry{spOff: int16(i), spReg: regSP, typ: orcCall})
		f.put(tableORCs+addr.Virt(orcEntrySize*i), raw[:]...)
	}
	for _, test := range []struct {
		ip   addr.Virt
		want int16
	}{
		{base, 0}, {base + 0xf, 0}, {base + 0x10, 2}, {base + 0x2f, 2}, {base + 0x30, 3}, {base + 0x99999, 3},
	} {
		if e, err := table.find(test.ip); err != nil || e.spOff != test.want {
			t.Errorf("find(%v) = entry %d, %v; want entry %d", test.ip, e.spOff, err, test.want)
		}
	}
	if _, err := table.find(base - 1); !errors.Is(err, errNoORC) {
		t.Errorf("find(%v) error: %v; want errNoORC", base-1, err)
	}
	delete(f.mem, tableIPs+4)
	if _, err := table.find(base); addr.ReasonOf(err) != addr.NotMapped {
		t.Errorf("find(%v) without memory, error: %v; want a fault", base, err)
	}
}

func TestORCDetect(t *testing.T) {
	call := map[orcFormat][orcEntrySize]byte{
		orcV1: {8, 0, 0, 0, 0x05, 0}, orcV2: {8, 0, 0, 0, 0x05, 0}, orcV3: {8, 0, 0, 0, 0x05, 2}, orcV4: {8, 0, 0, 0, 0x03, 2},
	}
	entry := map[orcFormat]byte{orcV1: 4, orcV2: 8, orcV3: 1, orcV4: 1}
	build := func(call [orcEntrySize]byte, last byte) *orcTable {
		f := &fake{mem: make(map[addr.Virt]byte)}
		table := &orcTable{mem: f, ips: tableIPs, orcs: tableORCs, n: 100}
		for i := range table.n {
			at := tableIPs + addr.Virt(orcIPSize*i)
			f.put(at, binary.LittleEndian.AppendUint32(nil, uint32(fn(i)-at))...)
			raw := call
			switch {
			case i == table.n-1:
				raw = [orcEntrySize]byte{5: last}
			case i%5 == 0:
				raw = [orcEntrySize]byte{4: 0x04} // of another kind
			}
			f.put(tableORCs+addr.Virt(orcEntrySize*i), raw[:]...)
		}
		return table
	}
	for want := orcV1; want <= orcV4; want++ {
		table := build(call[want], entry[want])
		if got, err := table.detect(fn(table.n - 1)); got != want || err != nil {
			t.Errorf("detect() of format %d = %d, %v", want, got, err)
		}
	}
	table := build([orcEntrySize]byte{8, 0, 0, 0, 0x07, 7}, 0)
	if got, err := table.detect(fn(table.n - 1)); err == nil {
		t.Errorf("detect() of no known format = %d; want an error", got)
	}
	table = build(call[orcV1], 0)
	if got, err := table.detect(fn(table.n - 1)); err == nil {
		t.Errorf("detect() with an unmarked entry = %d; want an error", got)
	}
	if got, err := (&orcTable{}).detect(0); err == nil {
		t.Errorf("detect() of an empty table = %d; want an error", got)
	}
}
