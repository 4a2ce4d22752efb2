package ctype_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// memory is virtual memory by the page.
type memory map[addr.Virt][]byte

func (m memory) Read(v addr.Virt, b []byte) error {
	for i := range b {
		page := m[(v+addr.Virt(i))&^0xfff]
		if page == nil {
			return &addr.Fault{Virt: v + addr.Virt(i), HasVirt: true, Reason: addr.Excluded}
		}
		b[i] = page[(v+addr.Virt(i))&0xfff]
	}
	return nil
}

const nodeAt = 0xffff888000001000

// someMemory holds a node at nodeAt whose next is the same node, and flags at
// nodeAt+0x100.
func someMemory() memory {
	page := make([]byte, 4096)
	le := binary.LittleEndian
	le.PutUint64(page[0:], nodeAt)
	le.PutUint64(page[8:], 0xfffffffe_00000007)
	copy(page[16:], "a name\x00x")
	for i := range 4 {
		le.PutUint32(page[24+4*i:], uint32(10+i))
	}
	// a = 0b101 (-3 in three bits), b = 0b1100011, plain = -1
	le.PutUint64(page[0x100:], 0xffffffff_0000031d)
	copy(page[4096-4:], "open") // a string that runs out of the page
	return memory{nodeAt: page}
}

func TestObject(t *testing.T) {
	s, m := parse(t, kernelBTF(), nil), someMemory()
	node := ctype.NewObject(m, mustLookup(t, s, "struct node"), nodeAt, "node")
	flags := ctype.NewObject(m, mustLookup(t, s, "struct flags"), nodeAt+0x100, "flags")
	for _, c := range []struct {
		name string
		o    ctype.Object
		want uint64
	}{
		{"pointer", node.Member("next"), nodeAt},
		{"through pointers", node.Member("next").Member("next").Deref().Member("value"), 0xfffffffe_00000007},
		{"in an anonymous struct in an anonymous union", node.Member("low"), 7},
		{"sign extended", node.Member("high"), ^uint64(1)},
		{"array", node.Member("matrix").Index(1).Index(0), 12},
		{"index of a pointer", node.Member("next").Index(0).Member("low"), 7},
		{"signed bit field", flags.Member("a"), ^uint64(2)},
		{"bit field", flags.Member("b"), 0x63},
		{"behind bit fields", flags.Member("plain"), ^uint64(0)},
		{"older name", node.Member("newer_name", "low"), 7},
		{"container", node.Member("name").ContainerOf(mustLookup(t, s, "struct node"), "name").Member("low"), 7},
		{"cast", node.Member("matrix").Cast(mustLookup(t, s, "unsigned long")), 10 | 11<<32},
	} {
		if v, err := c.o.Uint(); err != nil || v != c.want {
			t.Errorf("%s: Uint() = %#x, %v; want %#x", c.name, v, err, c.want)
		}
	}
	if s, err := node.Member("name").Str(); err != nil || s != "a name" {
		t.Errorf("Str() = %q, %v; want %q", s, err, "a name")
	}
	if n := node.Member("matrix").Len(); n != 2 {
		t.Errorf("Len() = %d; want 2", n)
	}
}

func TestObjectErrors(t *testing.T) {
	s, m := parse(t, kernelBTF(), nil), someMemory()
	node := ctype.NewObject(m, mustLookup(t, s, "struct node"), nodeAt, "node")
	far := ctype.NewObject(m, mustLookup(t, s, "struct node"), 0x5000, "far")
	var fault *addr.Fault
	for _, c := range []struct {
		name string
		o    ctype.Object
		is   error
		as   any
		want string
	}{
		{"no such member", node.Member("absent").Member("deeper"), ctype.ErrNoMember, nil, "node: no such member: absent in struct node"},
		{"none of the names", node.Member("absent", "missing"), ctype.ErrNoMember, nil, "missing"},
		{"memory that is not there", far.Member("next").Deref().Member("low"), nil, &fault, "far.next at 0x5000: page excluded"},
		{"index outside", node.Member("matrix").Index(2), nil, nil, "index 2 is outside"},
		{"negative index", node.Member("matrix").Index(-1), nil, nil, "outside"},
		{"index of a number", node.Member("low").Index(0), nil, nil, "index into int"},
		{"dereference of a number", node.Member("low").Deref(), nil, nil, "dereference int"},
		{"member of a number", node.Member("low").Member("x"), ctype.ErrNoMember, nil, "x in int"},
		{"struct as number", node, nil, nil, "is not a number"},
		{"too wide", ctype.NewObject(m, mustLookup(t, s, "struct big"), nodeAt, "big").Member("v"), nil, nil, "too large"},
		{"failed from the start", ctype.Failed("x", errors.New("why")).Member("y").Index(1).Deref(), nil, nil, "why"},
	} {
		_, err := c.o.Uint()
		switch {
		case err == nil:
			t.Errorf("%s: no error", c.name)
		case c.is != nil && !errors.Is(err, c.is):
			t.Errorf("%s: %v is not %v", c.name, err, c.is)
		case c.as != nil && !errors.As(err, c.as):
			t.Errorf("%s: %v is no %T", c.name, err, c.as)
		case !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: error %q; want %q in it", c.name, err, c.want)
		}
	}
	if fault != nil && (fault.Reason != addr.Excluded || fault.Virt != 0x5000 || fault.What != "far.next") {
		t.Errorf("fault is %+v; want 0x5000 excluded while reading far.next", fault)
	}
	if !node.Has("name") || node.Has("absent") || far.Member("absent").Has("name") {
		t.Error("Has is wrong")
	}
}

func TestDerefNull(t *testing.T) {
	s := parse(t, kernelBTF(), nil)
	m := memory{nodeAt: make([]byte, 4096)}
	_, err := ctype.NewObject(m, mustLookup(t, s, "struct node"), nodeAt, "n").Member("next").Deref().Member("low").Uint()
	if err == nil || !strings.Contains(err.Error(), "n.next: NULL pointer") {
		t.Errorf("Uint behind a NULL pointer = %v; want an error that names n.next", err)
	}
}

func TestCString(t *testing.T) {
	m := someMemory()
	endless := make([]byte, 4096)
	for i := range endless {
		endless[i] = 'x'
	}
	m[0x8000], m[0x9000] = endless, endless
	for _, c := range []struct {
		at   addr.Virt
		want string
		err  string
	}{
		{nodeAt + 16, "a name", ""},
		{nodeAt + 4096 - 4, "", "page excluded"},
		{0x8000, "", "no end within"},
		{nodeAt + 0x200, "", ""},
	} {
		got, err := ctype.CString(m, c.at)
		if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("CString(%v) = %q, %v; want %q, %q", c.at, got, err, c.want, c.err)
		}
	}
	page := make([]byte, 4096)
	copy(page[4096-3:], "ok\x00")
	if s, err := ctype.CString(memory{0x1000: page}, 0x1ffd); err != nil || s != "ok" {
		t.Errorf("CString at the end of memory = %q, %v; want ok", s, err)
	}
}

func ExampleObject_Member() {
	s, err := ctype.ParseBTF(kernelBTF().Bytes(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	node, err := s.Lookup("struct node")
	if err != nil {
		fmt.Println(err)
		return
	}
	o := ctype.NewObject(someMemory(), node, nodeAt, "some_node")
	name, err := o.Member("next").Member("full_name", "name").Str()
	fmt.Println(name, err)
	_, err = o.Member("nowhere").Uint()
	fmt.Println(err)
	// Output:
	// a name <nil>
	// some_node: no such member: nowhere in struct node
}
