package dump

import (
	"container/heap"
	"slices"
	"sort"
)

// extent says where the bytes [start, end) of some address space are in the file.
type extent struct {
	start, end uint64
	off        int64 // place of start in the file
	state      State // Present unless there is nothing at off
}

// overlay lays the extents over each other, the later hiding the earlier, and
// returns what is then visible: sorted and disjoint. None of them may be empty.
// It takes O(n log n) and may return its argument.
func overlay(in []extent) []extent {
	if disjoint(in) {
		return in
	}
	order := make([]int, len(in))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if in[a].start < in[b].start {
			return -1
		} else if in[a].start > in[b].start {
			return 1
		}
		return a - b
	})
	var out []extent
	var live topmost
	at := uint64(0)
	for len(order) > 0 || len(live.IntSlice) > 0 {
		if len(live.IntSlice) == 0 {
			at = in[order[0]].start
		}
		for len(order) > 0 && in[order[0]].start <= at {
			heap.Push(&live, order[0])
			order = order[1:]
		}
		top := in[live.IntSlice[0]]
		if top.end <= at {
			heap.Pop(&live)
			continue
		}
		end := top.end
		if len(order) > 0 {
			end = min(end, in[order[0]].start)
		}
		out = appendExtent(out, extent{at, end, top.off + int64(at-top.start), top.state})
		at = end
	}
	return out
}

// disjoint reports whether the extents are sorted and do not overlap.
func disjoint(in []extent) bool {
	for i := 1; i < len(in); i++ {
		if in[i].start < in[i-1].end {
			return false
		}
	}
	return true
}

// appendExtent appends e, joining it to the last one where they continue each other.
func appendExtent(s []extent, e extent) []extent {
	if n := len(s); n > 0 {
		l := &s[n-1]
		if l.end == e.start && l.state == e.state && (e.state != Present || l.off+int64(l.end-l.start) == e.off) {
			l.end = e.end
			return s
		}
	}
	return append(s, e)
}

// topmost is a heap of indices, the greatest first.
type topmost struct{ sort.IntSlice }

func (t topmost) Less(i, j int) bool { return t.IntSlice[i] > t.IntSlice[j] }
func (t *topmost) Push(x any)        { t.IntSlice = append(t.IntSlice, x.(int)) }
func (t *topmost) Pop() any {
	n := len(t.IntSlice) - 1
	x := t.IntSlice[n]
	t.IntSlice = t.IntSlice[:n]
	return x
}

// findExtent returns the index of the first of the sorted extents that ends
// after at, or len(s).
func findExtent(s []extent, at uint64) int {
	return sort.Search(len(s), func(i int) bool { return s[i].end > at })
}
