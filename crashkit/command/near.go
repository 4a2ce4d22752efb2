package command

import (
	"cmp"
	"slices"
	"strings"
)

// nearest returns at most n of the names, those most like name first: names that
// begin with it, and names a few typing mistakes away.
func nearest(name string, names []string, n int) []string {
	type candidate struct {
		name string
		d    int
	}
	limit := max(1, len(name)/3)
	var all []candidate
	for _, s := range names {
		d := limit + 1
		if name != "" && strings.HasPrefix(s, name) {
			d = 1
		} else if diff := len(s) - len(name); diff <= limit && -diff <= limit {
			d = distance(name, s)
		}
		if d <= limit {
			all = append(all, candidate{s, d})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.d, b.d), cmp.Compare(len(a.name), len(b.name)))
	})
	var out []string
	for _, c := range all {
		if len(out) < n && !slices.Contains(out, c.name) {
			out = append(out, c.name)
		}
	}
	return out
}

// distance counts the bytes to insert, remove, replace or swap with their
// neighbour to make b of a.
func distance(a, b string) int {
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
