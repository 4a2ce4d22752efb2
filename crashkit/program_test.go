package crashkit_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/internal/coretest"
)

// types are those that the tests' kernel needs: a little of each.
func types() *coretest.BTF {
	b := &coretest.BTF{}
	u32, long := b.Int("unsigned int", 4, false), b.Int("long unsigned int", 8, false)
	list := b.Declare()
	ptr := b.Ptr(list)
	b.SetStruct(list, "list_head", 16, coretest.Field{Name: "next", Type: ptr}, coretest.Field{Name: "prev", Type: ptr, Bit: 64})
	b.Layout("cpumask", coretest.Field{Name: "bits", Type: b.Array(long, 2), Bit: 16})
	b.Layout("item", coretest.Field{Name: "number", Type: u32, Bit: 4}, coretest.Field{Name: "link", Type: list, Bit: 16})
	return b
}

func newCore(t testing.TB) *coretest.Core { return coretest.New(t, types().Bytes()) }

func TestOpen(t *testing.T) {
	for _, e := range []coretest.Encoding{coretest.AbsolutePerCPU, coretest.BaseRelative, coretest.PlaceRelative} {
		c := newCore(t)
		c.Encoding = e
		c.Symbol("answer", 'D', coretest.Text+0x1000)
		c.Uint64(coretest.Text+0x1000, 42)
		p := c.Open(t)
		if len(p.Limits) != 0 {
			t.Errorf("Limits = %v; want none", p.Limits)
		}
		s, ok := p.Symbol("answer")
		if !ok || s.Addr != coretest.Text+0x1000 {
			t.Fatalf("Symbol(answer) = %+v, %v", s, ok)
		}
		if v, err := p.Uint64(s.Addr); err != nil || v != 42 {
			t.Errorf("Uint64(%v) = %d, %v; want 42", s.Addr, v, err)
		}
		if _, err := p.Type("struct list_head"); err != nil {
			t.Error(err)
		}
	}
}

// What is missing is said, and the rest works.
func TestOpenWithout(t *testing.T) {
	t.Run("types", func(t *testing.T) {
		p := coretest.New(t, nil).Open(t)
		if len(p.Limits) != 1 || !strings.Contains(p.Limits[0].Error(), "no types") {
			t.Errorf("Limits = %v; want that there are no types", p.Limits)
		}
		if _, err := p.Modules(); !errors.Is(err, ctype.ErrNotFound) {
			t.Errorf("Modules() = %v; want that struct module is not found", err)
		}
		if _, ok := p.Symbol("_stext"); !ok {
			t.Error("symbols are gone, too")
		}
	})
	t.Run("pages of types", func(t *testing.T) {
		c := newCore(t)
		c.Drop(coretest.BTFAt)
		p := c.Open(t)
		if len(p.Limits) != 1 || addr.ReasonOf(p.Limits[0]) == 0 {
			t.Errorf("Limits = %v; want a fault", p.Limits)
		}
	})
}

func TestRead(t *testing.T) {
	c := newCore(t)
	at := c.Alloc(3 * 4096)
	c.Write(at+4090, []byte("crosses a page"))
	c.Drop(at + 8192)
	p := c.Open(t)
	b := make([]byte, 14)
	if err := p.Read(at+4090, b); err != nil || string(b) != "crosses a page" {
		t.Errorf("Read across a page = %q, %v", b, err)
	}
	err := p.Read(at+8190, b)
	var f *addr.Fault
	if !errors.As(err, &f) || f.Virt != at+8192 || f.Reason != addr.NotInDump {
		t.Errorf("Read into a missing page = %v; want a fault at %v", err, at+8192)
	}
	if err := p.Read(0xdead000000000000, b); addr.ReasonOf(err) != addr.NotCanonical {
		t.Errorf("Read of a bad pointer = %v; want NotCanonical", err)
	}
	if err := p.Read(at-4096, b); addr.ReasonOf(err) != addr.NotMapped {
		t.Errorf("Read of what is not mapped = %v; want NotMapped", err)
	}
}

func TestCPUs(t *testing.T) {
	c := newCore(t)
	mask := c.Global(t, "__cpu_online_mask", "struct cpumask")
	c.Uint64(mask, 1<<0|1<<5|1<<63)
	c.Uint64(mask+8, 1<<3)
	offsets := c.Data(128 * 8)
	c.Symbol("__per_cpu_offset", 'R', offsets)
	per := c.Alloc(16)
	c.Uint64(offsets+5*8, uint64(per))
	c.Symbol("counter", 'A', 8) // a per-cpu symbol is an offset
	c.Uint64(per+8, 77)
	p := c.Open(t)
	if got, err := p.CPUs("__cpu_online_mask"); err != nil || !slices.Equal(got, []int{0, 5, 63, 67}) {
		t.Errorf("CPUs = %v, %v; want 0 5 63 67", got, err)
	}
	if v, err := p.PerCPUObject("counter", "unsigned int", 5).Uint(); err != nil || v != 77 {
		t.Errorf("counter of CPU 5 = %d, %v; want 77", v, err)
	}
	if _, err := p.PerCPU(1 << 20); err == nil {
		t.Error("PerCPU(1<<20) gave no error")
	}
	if _, err := p.PerCPU(-1); err == nil {
		t.Error("PerCPU(-1) gave no error")
	}
	if err := p.PerCPUObject("absent", "unsigned int", 0).Err(); !errors.Is(err, ctype.ErrNotFound) {
		t.Errorf("PerCPUObject(absent) = %v; want ErrNotFound", err)
	}
}

func TestCPUsCutByNumber(t *testing.T) {
	c := newCore(t)
	mask := c.Global(t, "__cpu_possible_mask", "struct cpumask")
	c.Uint64(mask, 3)
	c.Uint64(mask+8, 0xdead) // not used by a kernel for two CPUs
	c.Set(t, c.Global(t, "nr_cpu_ids", "struct item"), "struct item", "number", 2)
	p := c.Open(t)
	if got, err := p.CPUs("__cpu_possible_mask"); err != nil || !slices.Equal(got, []int{0, 1}) {
		t.Errorf("CPUs = %v, %v; want 0 1", got, err)
	}
}

func TestCPUsWithoutTypes(t *testing.T) {
	c := coretest.New(t, nil)
	mask := c.Data(16)
	c.Symbol("__cpu_online_mask", 'D', mask)
	c.Symbol("behind", 'D', mask+16)
	c.Uint64(mask+8, 1<<3)
	if got, err := c.Open(t).CPUs("__cpu_online_mask"); err != nil || !slices.Equal(got, []int{67}) {
		t.Errorf("CPUs = %v, %v; want 67", got, err)
	}
}

// A kernel built without SMP has no table of offsets.
func TestPerCPUWithoutSMP(t *testing.T) {
	c := newCore(t)
	at := c.Global(t, "counter", "struct item")
	c.Set(t, at, "struct item", "number", 5)
	p := c.Open(t)
	if v, err := p.PerCPUObject("counter", "unsigned int", 0).Uint(); err != nil || v != 5 {
		t.Errorf("counter of CPU 0 = %d, %v; want 5", v, err)
	}
	if _, err := p.PerCPU(1); !errors.Is(err, ctype.ErrNotFound) {
		t.Errorf("PerCPU(1) = %v; want ErrNotFound", err)
	}
}

func TestList(t *testing.T) {
	const link = 8 // offset in struct item
	for _, c := range []struct {
		name   string
		damage func(c *coretest.Core, items []addr.Virt)
		items  int
		want   []uint64
		err    string
	}{
		{"empty", nil, 0, nil, ""},
		{"one", nil, 1, []uint64{0}, ""},
		{"three", nil, 3, []uint64{0, 1, 2}, ""},
		{"loop", func(c *coretest.Core, it []addr.Virt) { c.Uint64(it[2]+link, uint64(it[1]+link)) }, 4, nil, "loops"},
		{"loop onto itself", func(c *coretest.Core, it []addr.Virt) { c.Uint64(it[0]+link, uint64(it[0]+link)) }, 2, nil, "loops"},
		{"NULL", func(c *coretest.Core, it []addr.Virt) { c.Uint64(it[1]+link, 0) }, 3, []uint64{0, 1}, "after 2 entries"},
		{"poison", func(c *coretest.Core, it []addr.Virt) { c.Uint64(it[0]+link, 0xdead000000000100) }, 3, []uint64{0}, "not a canonical address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			core := newCore(t)
			head := core.Global(t, "modules", "struct list_head")
			var items, links []addr.Virt
			for i := range c.items {
				it := core.New(t, "struct item")
				core.Set(t, it, "struct item", "number", i)
				items, links = append(items, it), append(links, it+link)
			}
			core.List(head, links...)
			if c.damage != nil {
				c.damage(core, items)
			}
			p := core.Open(t)
			item, err := p.Type("struct item")
			if err != nil {
				t.Fatal(err)
			}
			var got []uint64
			err = p.List(p.Object("modules"), item, "link", func(o ctype.Object) bool {
				if n, err := o.Member("number").Uint(); err == nil {
					got = append(got, n)
				}
				return len(got) < 1000
			})
			if c.want != nil || c.err == "" {
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("List: -want +got:\n%s", d)
				}
			}
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("List = %v; want an error with %q", err, c.err)
			}
		})
	}
}

func TestListStops(t *testing.T) {
	core := newCore(t)
	head := core.Global(t, "modules", "struct list_head")
	core.List(head, core.New(t, "struct item")+8, core.New(t, "struct item")+8)
	p := core.Open(t)
	item, err := p.Type("struct item")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := p.List(p.Object("modules"), item, "link", func(ctype.Object) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("List called yield %d times, %v; want once", n, err)
	}
	if err := p.List(p.Object("modules"), item, "absent", nil); !errors.Is(err, ctype.ErrNoMember) {
		t.Errorf("List by an absent member = %v; want ErrNoMember", err)
	}
}

func Example() {
	p, err := crashkit.Open("no-such-file")
	fmt.Println(p == nil, err)
	// Output:
	// true open no-such-file: no such file or directory
}
