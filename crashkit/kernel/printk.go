package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
)

// LogRecord is one record of the kernel log.
type LogRecord struct {
	Seq       uint64 `json:"seq"`
	TimeNS    uint64 `json:"time_ns"`  // since boot, by the clock of printk
	Level     int    `json:"level"`    // 0 (emergency) to 7 (debug)
	Facility  int    `json:"facility"` // 0 for the kernel itself
	Caller    string `json:"caller"`   // "T350" for the thread of that PID, "C0" for the processor outside of a thread
	Subsystem string `json:"subsystem,omitempty"`
	Device    string `json:"device,omitempty"`
	Text      string `json:"text"` // without final newline; may hold several lines
}

// LogText returns the text of the records, each on a line of its own.
func LogText(records []LogRecord) string {
	var b strings.Builder
	for i := range records {
		b.WriteString(records[i].Text)
		b.WriteByte('\n')
	}
	return b.String()
}

// maxLogBits bounds the number of records: 1<<maxLogBits.
const maxLogBits = 22

// Log reads the kernel log, oldest record first.
//
// It is the lockless ring buffer of kernel/printk/printk_ringbuffer.c, since
// Linux commit 896fbe20b4e2 ("printk: use the lockless ringbuffer") (in v5.10),
// read by the offsets that VMCOREINFO gives for this purpose: it needs neither
// types nor kallsyms. Records whose text is lost have none; records that could
// not be read are left out, and an error says how many.
func Log(p *crashkit.Program) ([]LogRecord, error) {
	r, err := openRing(p)
	if err != nil {
		return nil, fmt.Errorf("kernel log: %w", err)
	}
	var records []LogRecord
	lost, first := 0, error(nil)
	for id := r.tail; ; id = (id + 1) & descIDMask {
		rec, ok, err := r.record(id)
		switch {
		case err != nil:
			if lost++; first == nil {
				first = err
			}
		case ok:
			records = append(records, rec)
		}
		if id == r.head {
			break
		}
	}
	if lost > 0 {
		return records, fmt.Errorf("kernel log: %d records are lost: %w", lost, first)
	}
	return records, nil
}

// descIDMask are the bits of a state_var that hold the descriptor's ID; the two
// above hold its state.
const (
	descStateShift = 62
	descIDMask     = 1<<descStateShift - 1

	descCommitted = 1
	descFinalized = 2
)

// ring is a struct printk_ringbuffer.
type ring struct {
	p          *crashkit.Program
	at         ringOffsets
	descs      addr.Virt
	infos      addr.Virt
	mask       uint64 // number of descriptors - 1
	head, tail uint64 // IDs of the newest and the oldest descriptor
	data       addr.Virt
	dataBits   uint64
	desc, info []byte // buffers
}

// ringOffsets are what VMCOREINFO says of the ring's layout.
type ringOffsets struct {
	descRing, countBits, descs, infos, headID, tailID uint64
	dataRing, sizeBits, data                          uint64
	counter                                           uint64
	desc, stateVar, textBlk, begin, next              uint64
	info, seq, tsNsec, textLen, callerID              uint64
	devInfo, subsystem, device                        uint64
	subsystemLen, deviceLen                           uint64
}

func ringLayout(p *crashkit.Program) (ringOffsets, error) {
	var at ringOffsets
	for _, k := range []struct {
		key string
		val *uint64
	}{
		{"OFFSET(printk_ringbuffer.desc_ring)", &at.descRing},
		{"OFFSET(printk_ringbuffer.text_data_ring)", &at.dataRing},
		{"OFFSET(prb_desc_ring.count_bits)", &at.countBits},
		{"OFFSET(prb_desc_ring.descs)", &at.descs},
		{"OFFSET(prb_desc_ring.infos)", &at.infos},
		{"OFFSET(prb_desc_ring.head_id)", &at.headID},
		{"OFFSET(prb_desc_ring.tail_id)", &at.tailID},
		{"OFFSET(prb_data_ring.size_bits)", &at.sizeBits},
		{"OFFSET(prb_data_ring.data)", &at.data},
		{"OFFSET(atomic_long_t.counter)", &at.counter},
		{"SIZE(prb_desc)", &at.desc},
		{"OFFSET(prb_desc.state_var)", &at.stateVar},
		{"OFFSET(prb_desc.text_blk_lpos)", &at.textBlk},
		{"OFFSET(prb_data_blk_lpos.begin)", &at.begin},
		{"OFFSET(prb_data_blk_lpos.next)", &at.next},
		{"SIZE(printk_info)", &at.info},
		{"OFFSET(printk_info.seq)", &at.seq},
		{"OFFSET(printk_info.ts_nsec)", &at.tsNsec},
		{"OFFSET(printk_info.text_len)", &at.textLen},
		{"OFFSET(printk_info.caller_id)", &at.callerID},
		{"OFFSET(printk_info.dev_info)", &at.devInfo},
		{"OFFSET(dev_printk_info.subsystem)", &at.subsystem},
		{"LENGTH(printk_info_subsystem)", &at.subsystemLen},
		{"OFFSET(dev_printk_info.device)", &at.device},
		{"LENGTH(printk_info_device)", &at.deviceLen},
	} {
		v, ok := p.Info.Uint(k.key, 10)
		if !ok || v > 4096 {
			return at, fmt.Errorf("VMCOREINFO has no sensible %s", k.key)
		}
		*k.val = v
	}
	if end := at.textBlk + max(at.begin, at.next) + 8; end > at.desc || at.stateVar+at.counter+8 > at.desc {
		return at, errors.New("VMCOREINFO puts members of prb_desc past its end")
	}
	for _, end := range []uint64{
		at.seq + 8, at.tsNsec + 8, at.textLen + 4, at.callerID + 4,
		at.devInfo + at.subsystem + at.subsystemLen, at.devInfo + at.device + at.deviceLen,
	} {
		if end > at.info {
			return at, errors.New("VMCOREINFO puts members of printk_info past its end")
		}
	}
	return at, nil
}

func openRing(p *crashkit.Program) (*ring, error) {
	sym, ok := p.Info.Symbol("prb")
	if !ok {
		return nil, errors.New("VMCOREINFO has no SYMBOL(prb): a kernel before v5.10")
	}
	at, err := ringLayout(p)
	if err != nil {
		return nil, err
	}
	// A pointer: a log_buf_len= on the command line moves the ring.
	v, err := p.Uint64(addr.Virt(sym))
	if err != nil {
		return nil, fmt.Errorf("prb: %w", err)
	}
	rb := addr.Virt(v)
	r := &ring{p: p, at: at, desc: make([]byte, at.desc), info: make([]byte, at.info)}
	var countBits, sizeBits uint32
	var problems Problems
	u32 := func(off uint64) uint32 {
		n, err := p.Uint32(rb + addr.Virt(off))
		problems.note(err)
		return n
	}
	u64 := func(off uint64) uint64 {
		n, err := p.Uint64(rb + addr.Virt(off))
		problems.note(err)
		return n
	}
	countBits = u32(at.descRing + at.countBits)
	r.descs = addr.Virt(u64(at.descRing + at.descs))
	r.infos = addr.Virt(u64(at.descRing + at.infos))
	r.head = u64(at.descRing+at.headID+at.counter) & descIDMask
	r.tail = u64(at.descRing+at.tailID+at.counter) & descIDMask
	sizeBits = u32(at.dataRing + at.sizeBits)
	r.data = addr.Virt(u64(at.dataRing + at.data))
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("printk_ringbuffer: %w", err)
	}
	if countBits > maxLogBits || sizeBits > 31 {
		return nil, fmt.Errorf("printk_ringbuffer at %v: 2^%d descriptors, 2^%d bytes of text: not a ring", rb, countBits, sizeBits)
	}
	r.mask = 1<<countBits - 1
	r.dataBits = uint64(sizeBits)
	if n := (r.head - r.tail) & descIDMask; n > r.mask {
		return nil, fmt.Errorf("printk_ringbuffer at %v: %d records in a ring of %d", rb, n+1, r.mask+1)
	}
	return r, nil
}

// record reads the record of a descriptor; ok is false if there is none: being
// written, or its place used again.
func (r *ring) record(id uint64) (rec LogRecord, ok bool, err error) {
	i := addr.Virt(id & r.mask)
	if err := r.p.Read(r.descs+i*addr.Virt(len(r.desc)), r.desc); err != nil {
		return rec, false, fmt.Errorf("descriptor %d: %w", id, err)
	}
	le := binary.LittleEndian
	state := le.Uint64(r.desc[r.at.stateVar+r.at.counter:])
	if s := state >> descStateShift; state&descIDMask != id || s != descCommitted && s != descFinalized {
		return rec, false, nil
	}
	if err := r.p.Read(r.infos+i*addr.Virt(len(r.info)), r.info); err != nil {
		return rec, false, fmt.Errorf("printk_info of descriptor %d: %w", id, err)
	}
	rec = LogRecord{
		Seq:    le.Uint64(r.info[r.at.seq:]),
		TimeNS: le.Uint64(r.info[r.at.tsNsec:]),
		// VMCOREINFO does not name these two: they follow text_len.
		Facility: int(r.info[r.at.textLen+2]),
		Level:    int(r.info[r.at.textLen+3] >> 5), // above five bits of flags
	}
	rec.Caller = fmt.Sprintf("T%d", le.Uint32(r.info[r.at.callerID:]))
	if c := le.Uint32(r.info[r.at.callerID:]); c&0x80000000 != 0 {
		rec.Caller = fmt.Sprintf("C%d", c&^0x80000000)
	}
	dev := r.info[r.at.devInfo:]
	rec.Subsystem = cstring(dev[r.at.subsystem:][:r.at.subsystemLen])
	rec.Device = cstring(dev[r.at.device:][:r.at.deviceLen])
	blk := r.desc[r.at.textBlk:]
	rec.Text, err = r.text(id, le.Uint64(blk[r.at.begin:]), le.Uint64(blk[r.at.next:]), uint64(le.Uint16(r.info[r.at.textLen:])))
	if err != nil {
		return rec, false, fmt.Errorf("text of record %d: %w", rec.Seq, err)
	}
	return rec, true, nil
}

// text reads a data block: the descriptor's ID, an unsigned long, and then the
// text. Lpos are positions in an endless stream of which the ring holds the end.
// A block that would not fit before the ring's end stands at its start.
func (r *ring) text(id, begin, next, want uint64) (string, error) {
	if begin&1 != 0 && next&1 != 0 { // without data: an empty line, or no room for it
		return "", nil
	}
	const idSize = 8
	size := uint64(1) << r.dataBits
	at, n := begin&(size-1), next-begin
	if begin>>r.dataBits != (next-1)>>r.dataBits {
		at, n = 0, next&(size-1)
	}
	if next-begin > size || n < idSize || n > size-at {
		return "", fmt.Errorf("block [%#x, %#x) is not in a ring of %#x", begin, next, size)
	}
	block := make([]byte, min(n, idSize+want))
	if err := r.p.Read(r.data+addr.Virt(at), block); err != nil {
		return "", err
	}
	if got := binary.LittleEndian.Uint64(block); got != id {
		return "", nil // overwritten by a newer record
	}
	return strings.TrimRight(string(block[idSize:]), "\n"), nil
}

// cstring returns the text up to the first NUL.
func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
