package kernel

import (
	"fmt"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// Limits of a walk over a damaged xarray. A full pid_namespace (4 million PIDs)
// has some 66,000 nodes.
const (
	maxXANodes = 1 << 18
	xaMaxShift = 64
)

// ForEachXA calls yield with each index and entry of a struct xarray
// (include/linux/xarray.h), ascending, until it returns false. Entries are
// pointers, or values tagged as the kernel tags them. It reports the nodes that
// could not be read, and goes on behind them.
func ForEachXA(p *crashkit.Program, xa ctype.Object, yield func(index uint64, entry addr.Virt) bool) error {
	node, err := p.Type("struct xa_node")
	if err != nil {
		return err
	}
	head, err := xa.Member("xa_head").Ptr()
	if err != nil {
		return err
	}
	w := xaWalk{p: p, node: node, path: xa.Path(), yield: yield, left: maxXANodes}
	w.entry(head, 0, xaMaxShift)
	return w.problems.Err()
}

type xaWalk struct {
	p        *crashkit.Program
	node     ctype.Type
	path     string
	yield    func(uint64, addr.Virt) bool
	left     int // nodes that may still be visited
	problems Problems
}

// entry visits an entry for the indexes from index, found in a node of the
// given shift. It returns false to end the walk.
func (w *xaWalk) entry(e addr.Virt, index uint64, parent uint64) bool {
	switch {
	case e == 0:
		return true
	case e&3 != 2: // not an internal entry
		return w.yield(index, e)
	case e <= 4096: // a sibling, retry or zero entry
		return true
	}
	o := ctype.NewObject(w.p, w.node, e-2, w.path)
	if w.left--; w.left < 0 {
		w.problems.note(fmt.Errorf("xarray %s: more than %d nodes", w.path, maxXANodes))
		return false
	}
	shift, err := o.Member("shift").Uint()
	if err == nil && shift >= parent {
		// Shifts fall on the way down; this also ends every loop.
		err = fmt.Errorf("xarray %s: node at %v of shift %d stands below one of shift %d", w.path, e-2, shift, parent)
	}
	if err != nil {
		w.problems.note(err)
		return true
	}
	slots := o.Member("slots")
	raw, err := slots.Bytes()
	if err != nil {
		w.problems.note(err)
		return true
	}
	for i := 0; i+8 <= len(raw); i += 8 {
		if !w.entry(addr.Virt(le64(raw[i:])), index+uint64(i/8)<<shift, shift) {
			return false
		}
	}
	return true
}
