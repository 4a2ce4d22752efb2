package kernel_test

import (
	"fmt"
	"strings"
	"testing"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/internal/coretest"
	"crashlab/crashkit/kernel"
)

func xarrayTypes() []byte {
	b := &coretest.BTF{}
	u8, ptr := b.Int("unsigned char", 1, false), b.Ptr(0)
	b.Layout("xa_node", coretest.Field{Name: "shift", Type: u8, Bit: 1}, coretest.Field{Name: "pad", Type: b.Array(u8, 32), Bit: 32},
		coretest.Field{Name: "slots", Type: b.Array(ptr, 64), Bit: 512})
	b.Layout("xarray", coretest.Field{Name: "xa_flags", Type: u8, Bit: 1}, coretest.Field{Name: "xa_head", Type: ptr, Bit: 8})
	return b.Bytes()
}

func TestForEachXA(t *testing.T) {
	const node = "struct xa_node"
	type builder struct {
		*coretest.Core
		node func(shift int, slots map[int]addr.Virt) addr.Virt // returns the entry
	}
	for _, c := range []struct {
		name string
		head func(b builder) addr.Virt
		want string
		err  string
	}{
		{"empty", func(builder) addr.Virt { return 0 }, "", ""},
		{"one entry, no node", func(builder) addr.Virt { return 0x7000 }, "0:0x7000 ", ""},
		{"a tagged value", func(builder) addr.Virt { return 0x15 }, "0:0x15 ", ""},
		{"one node", func(b builder) addr.Virt { return b.node(0, map[int]addr.Virt{1: 0x1000, 63: 0x2000}) }, "1:0x1000 63:0x2000 ", ""},
		{
			"three levels", func(b builder) addr.Virt {
				leaf := b.node(0, map[int]addr.Virt{0: 0x1000, 5: 0x2000})
				mid := b.node(6, map[int]addr.Virt{0: leaf, 2: b.node(0, map[int]addr.Virt{1: 0x3000})})
				return b.node(12, map[int]addr.Virt{0: mid, 3: b.node(6, map[int]addr.Virt{1: b.node(0, map[int]addr.Virt{7: 0x4000})})})
			},
			"0:0x1000 5:0x2000 129:0x3000 12359:0x4000 ", "",
		},
		{"retry and sibling entries", func(b builder) addr.Virt { return b.node(0, map[int]addr.Virt{0: 0x1000, 1: 258<<2 | 2, 2: 6}) }, "0:0x1000 ", ""},
		{
			"a node that is not there", func(b builder) addr.Virt {
				return b.node(6, map[int]addr.Virt{0: 0xffff800000000002, 1: b.node(0, map[int]addr.Virt{0: 0x1000})})
			},
			"64:0x1000 ", "not mapped",
		},
		{
			"a loop", func(b builder) addr.Virt {
				e := b.node(6, map[int]addr.Virt{1: 0x1000})
				b.Uint64(e-2+b.Offset(t, node, "slots"), uint64(e))
				return e
			},
			"64:0x1000 ", "of shift 6 stands below one of shift 6",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			core := coretest.New(t, xarrayTypes())
			b := builder{core, func(shift int, slots map[int]addr.Virt) addr.Virt {
				v := core.New(t, node)
				core.Set(t, v, node, "shift", shift)
				for i, e := range slots {
					core.Uint64(v+core.Offset(t, node, "slots")+addr.Virt(8*i), uint64(e))
				}
				return v + 2
			}}
			xa := core.Global(t, "tree", "struct xarray")
			core.Set(t, xa, "struct xarray", "xa_head", c.head(b))
			p := core.Open(t)
			got := ""
			err := kernel.ForEachXA(p, p.ObjectAs("tree", "struct xarray"), func(i uint64, e addr.Virt) bool {
				got += fmt.Sprintf("%d:%v ", i, e)
				return true
			})
			if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("ForEachXA gave %q, %v; want %q, %q", got, err, c.want, c.err)
			}
		})
	}
}
