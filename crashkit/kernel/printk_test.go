package kernel_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/internal/coretest"
	"crashlab/crashkit/kernel"
)

// ringTest is a printk_ringbuffer in the making, with the layout that ringInfo
// tells VMCOREINFO: shifted by eight bytes from that of v6.1 here and there, so
// that a constant in the reader shows.
type ringTest struct {
	c                    *coretest.Core
	rb, desc, info, data addr.Virt
	countBits, sizeBits  int
}

const (
	descSize, infoSize = 32, 104
	firstID            = 0x3ffffffffffffffe // IDs wrap soon
)

var ringInfo = strings.Fields(`
	OFFSET(printk_ringbuffer.desc_ring)=8 OFFSET(printk_ringbuffer.text_data_ring)=64
	OFFSET(prb_desc_ring.count_bits)=0 OFFSET(prb_desc_ring.descs)=8 OFFSET(prb_desc_ring.infos)=16
	OFFSET(prb_desc_ring.head_id)=24 OFFSET(prb_desc_ring.tail_id)=32
	OFFSET(prb_data_ring.size_bits)=0 OFFSET(prb_data_ring.data)=8 OFFSET(atomic_long_t.counter)=0
	SIZE(prb_desc)=32 OFFSET(prb_desc.state_var)=8 OFFSET(prb_desc.text_blk_lpos)=16
	OFFSET(prb_data_blk_lpos.begin)=0 OFFSET(prb_data_blk_lpos.next)=8
	SIZE(printk_info)=104 OFFSET(printk_info.seq)=8 OFFSET(printk_info.ts_nsec)=16 OFFSET(printk_info.text_len)=24
	OFFSET(printk_info.caller_id)=28 OFFSET(printk_info.dev_info)=40
	OFFSET(dev_printk_info.subsystem)=0 LENGTH(printk_info_subsystem)=16
	OFFSET(dev_printk_info.device)=16 LENGTH(printk_info_device)=48`)

func newRing(t testing.TB, countBits, sizeBits int) *ringTest {
	c := coretest.New(t, nil)
	r := &ringTest{
		c: c, rb: c.Alloc(128), desc: c.Alloc(descSize << countBits), info: c.Alloc(infoSize << countBits), data: c.Alloc(1 << sizeBits),
		countBits: countBits, sizeBits: sizeBits,
	}
	prb := c.Data(8)
	c.Uint64(prb, uint64(r.rb))
	c.Info = append(append(c.Info, ringInfo...), fmt.Sprintf("SYMBOL(prb)=%x", uint64(prb)))
	c.Uint64(r.rb+8, uint64(countBits))
	c.Uint64(r.rb+16, uint64(r.desc))
	c.Uint64(r.rb+24, uint64(r.info))
	c.Uint64(r.rb+64, uint64(sizeBits))
	c.Uint64(r.rb+72, uint64(r.data))
	r.bounds(firstID, firstID)
	return r
}

func id(i int) uint64 { return (firstID + uint64(i)) & (1<<62 - 1) }

// bounds sets the IDs of the oldest and the newest descriptor.
func (r *ringTest) bounds(tail, head uint64) {
	r.c.Uint64(r.rb+8+24, head)
	r.c.Uint64(r.rb+8+32, tail)
}

// states of a descriptor.
const (
	reserved = iota
	committed
	finalized
	reusable
)

// put writes record number i, and its text, if it is not "", into the block
// [begin, next).
func (r *ringTest) put(i, state int, begin, next uint64, text string, textLen int) {
	slot := addr.Virt(id(i) & (1<<r.countBits - 1))
	d := r.desc + slot*descSize
	r.c.Uint64(d+8, id(i)|uint64(state)<<62)
	r.c.Uint64(d+16, begin)
	r.c.Uint64(d+24, next)
	n := r.info + slot*infoSize
	r.c.Uint64(n+8, uint64(i))
	r.c.Uint64(n+16, uint64(i)*1000)
	r.c.Write(n+24, []byte{byte(textLen), byte(textLen >> 8), 3, 5<<5 | 0x1f}) // facility 3, level 5, all flags
	caller := uint32(300 + i)
	if i%2 == 1 {
		caller = 0x80000000 | uint32(i)
	}
	r.c.Write(n+28, binary.LittleEndian.AppendUint32(nil, caller))
	if text == "" {
		return
	}
	size := uint64(1) << r.sizeBits
	at := begin & (size - 1)
	if begin/size != (next-1)/size {
		at = 0
	}
	r.c.Uint64(r.data+addr.Virt(at), id(i))
	r.c.Write(r.data+addr.Virt(at)+8, []byte(text))
}

func TestLog(t *testing.T) {
	r := newRing(t, 4, 8) // 16 records, 256 bytes of text
	const wrap = 256
	r.put(0, finalized, 5*wrap+104, 5*wrap+128, "first", 5)
	r.put(1, finalized, 1, 1, "", 7)                              // no room for its text
	r.put(2, finalized, 3, 3, "", 0)                              // an empty line
	r.put(3, reusable, 5*wrap+24, 5*wrap+48, "gone", 4)           // being recycled
	r.put(4, reserved, 5*wrap+24, 5*wrap+48, "half written", 12)  // being written
	r.put(5, committed, 5*wrap+48, 5*wrap+72, "may yet grow", 12) // not finalized, but whole
	r.put(6, finalized, 5*wrap+72, 5*wrap+96, "cut to the block", 100)
	r.put(7, finalized, 5*wrap+240, 6*wrap+24, "at the start", 12) // did not fit before the end
	r.put(8, finalized, 6*wrap+24, 6*wrap+48, "two\nlines\n", 10)
	r.put(9, finalized, 6*wrap+232, 7*wrap, "to the end", 10)
	r.put(10, finalized, 7*wrap+136, 7*wrap+160, "overwritten", 11)
	r.c.Uint64(r.data+136, id(12)) // by a newer record
	slot := addr.Virt(id(8) & 15)
	r.c.Write(r.info+slot*infoSize+40, []byte("pci\x00"))
	r.c.Write(r.info+slot*infoSize+56, []byte("+pci:0000:00:05.0\x00"))
	r.bounds(id(0), id(10))

	got, err := kernel.Log(r.c.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	rec := func(i int, text string) kernel.LogRecord {
		caller := fmt.Sprintf("T%d", 300+i)
		if i%2 == 1 {
			caller = fmt.Sprintf("C%d", i)
		}
		return kernel.LogRecord{Seq: uint64(i), TimeNS: uint64(i) * 1000, Level: 5, Facility: 3, Caller: caller, Text: text}
	}
	want := []kernel.LogRecord{
		rec(0, "first"), rec(1, ""), rec(2, ""), rec(5, "may yet grow"), rec(6, "cut to the block"),
		rec(7, "at the start"), rec(8, "two\nlines"), rec(9, "to the end"), rec(10, ""),
	}
	want[6].Subsystem, want[6].Device = "pci", "+pci:0000:00:05.0"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Log: -want +got:\n%s", d)
	}
	if text := kernel.LogText(got[5:7]); text != "at the start\ntwo\nlines\n" {
		t.Errorf("LogText = %q", text)
	}
}

func TestLogDamaged(t *testing.T) {
	for _, c := range []struct {
		name    string
		damage  func(r *ringTest)
		records int
		want    string
	}{
		{"too many records", func(r *ringTest) { r.bounds(id(0), id(16)) }, 0, "17 records in a ring of 16"},
		{"bounds crossed", func(r *ringTest) { r.bounds(id(1), id(0)) }, 0, "in a ring of 16"},
		{"a ring of nonsense", func(r *ringTest) { r.c.Write(r.rb+8, []byte{60}) }, 0, "not a ring"},
		{"data of nonsense", func(r *ringTest) { r.c.Write(r.rb+64, []byte{60}) }, 0, "not a ring"},
		{"no ring", func(r *ringTest) { r.c.Drop(r.rb) }, 0, "printk_ringbuffer"},
		{"no key", func(r *ringTest) { r.c.Info = r.c.Info[1:] }, 0, "OFFSET(printk_ringbuffer.desc_ring)"},
		{"members outside", func(r *ringTest) { r.c.Info = append([]string{"SIZE(prb_desc)=8"}, r.c.Info...) }, 0, "past its end"},
		{"a block outside", func(r *ringTest) { r.put(1, finalized, 256, 250, "x", 1) }, 1, "1 records are lost"},
		{"a block without ID", func(r *ringTest) { r.put(1, finalized, 24, 28, "", 1) }, 1, "1 records are lost"},
		{"no text", func(r *ringTest) { r.c.Drop(r.data) }, 0, "2 records are lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRing(t, 4, 8)
			r.c.Alloc(4096) // keeps the data on a page of its own
			r.data = r.c.Alloc(4096)
			r.c.Uint64(r.rb+72, uint64(r.data))
			r.put(0, finalized, 0, 24, "first", 5)
			r.put(1, finalized, 24, 48, "second", 6)
			r.bounds(id(0), id(1))
			c.damage(r)
			got, err := kernel.Log(r.c.Open(t))
			if err == nil || !strings.Contains(err.Error(), c.want) || len(got) != c.records {
				t.Errorf("Log = %d records, %v; want %d and an error with %q", len(got), err, c.records, c.want)
			}
		})
	}
}

func TestLogWithoutRing(t *testing.T) {
	if _, err := kernel.Log(coretest.New(t, nil).Open(t)); err == nil || !strings.Contains(err.Error(), "SYMBOL(prb)") {
		t.Errorf("Log = %v; want that VMCOREINFO has no SYMBOL(prb)", err)
	}
}
