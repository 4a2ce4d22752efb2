package unwind

import (
	"testing"

	"crashlab/crashkit/addr"
)

func TestLayoutAt(t *testing.T) {
	for _, c := range []struct {
		name string
		code string // before the instruction
		want layout
		ok   bool
	}{
		{"the first instruction", "", layout{}, true},
		{"push %rbp", "\x55", layout{size: 8, bp: -8}, true},
		{"push %rbp; mov %rsp,%rbp", "\x55\x48\x89\xe5", layout{size: 8, bp: -8, frame: true}, true},
		{"push %rbx; push %rbp; mov %rsp,%rbp", "\x53\x55\x48\x89\xe5", layout{size: 16, bp: -16, frame: true}, true},
		{"push %rbx; mov %rsp,%rbp", "\x53\x48\x89\xe5", layout{size: 8}, true},
		{"push %rbp; mov %rsp,%rbp; push %rbx; sub $0x18,%rsp", "\x55\x48\x89\xe5\x53\x48\x83\xec\x18", layout{size: 0x28, bp: -8, frame: true}, true},
		{"sub $0xa8,%rsp; add $0xa8,%rsp", "\x48\x81\xec\xa8\x00\x00\x00\x48\x81\xc4\xa8\x00\x00\x00", layout{}, true},
		{"push %rbp; push %rbx; pop %rbx; pop %rbp", "\x55\x53\x5b\x5d", layout{}, true},
		{"pushf", "\x9c", layout{size: 8}, true},
		{"popcnt %rax,%rax", "\xf3\x48\x0f\xb8\xc0", layout{}, true},
		{"jne over a push", "\x75\x01\x53", layout{}, true},
		{"jne further; push %rbx", "\x75\x10\x53", layout{size: 8}, true},
		{"push %rbx; jne over pop %rbx; ret", "\x53\x75\x02\x5b\xc3", layout{size: 8}, true},
		{"jmp over a push", "\xeb\x01\x53", layout{}, true},
		{"ret", "\x53\xc3", layout{size: 8}, false},
		{"jmp back", "\xeb\xfe", layout{}, false},
		{"jmp *%rax", "\xff\xe0", layout{}, false},
		{"and $0xfffffffffffffff0,%rsp", "\x48\x83\xe4\xf0", layout{}, false},
		{"leave", "\xc9", layout{}, false},
		{"pop %rbx of the caller's", "\x5b", layout{size: -8}, false},
		{"(bad)", "\x06", layout{}, false},
	} {
		f := newFake(spCall)
		f.put(fn(0), []byte(c.code)...)
		if got, ok := layoutAt(f, fn(0), fn(0)+addr.Virt(len(c.code))); ok != c.ok || ok && got != c.want {
			t.Errorf("behind %s: layoutAt = %+v, %v; want %+v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
	f := newFake(spCall)
	if l, ok := layoutAt(f, fn(0)+1, fn(0)); ok {
		t.Errorf("layoutAt before the function = %+v", l)
	}
	if l, ok := layoutAt(f, fn(0), fn(0)+maxCode+1); ok {
		t.Errorf("layoutAt far from the function's start = %+v", l)
	}
	if l, ok := layoutAt(f, fn(5), fn(5)+8); ok {
		t.Errorf("layoutAt without code = %+v", l)
	}
}

// FuzzLayoutAt looks at code of any content, at every place in it.
func FuzzLayoutAt(f *testing.F) {
	f.Add([]byte("\x55\x48\x89\xe5\x53\x48\x83\xec\x18\x75\x02\x5b\xc3"))
	f.Add([]byte("\x48\x81\xec\xff\xff\xff\x7f\xeb\xfe\xc9\x9c"))
	f.Fuzz(func(t *testing.T, code []byte) {
		code = code[:min(len(code), fnSize)]
		m := newFake(spCall)
		m.put(fn(0), code...)
		for i := range addr.Virt(len(code)) {
			if l, ok := layoutAt(m, fn(0), fn(0)+i); ok && l.size < 0 {
				t.Errorf("layoutAt %d = %+v: less than no bytes", i, l)
			}
		}
	})
}
