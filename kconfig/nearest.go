package kconfig

import (
	"cmp"
	"slices"
	"strings"
)

// Nearest returns up to four of names that are similar to name, best first.
func Nearest(name string, names []string) []string {
	type candidate struct {
		name string
		far  int
	}
	var all []candidate
	low := strings.ToLower(name)
	for _, n := range names {
		l := strings.ToLower(n)
		far := distance(low, l)
		inside := len(low) > 2 && strings.Contains(l, low)
		if inside {
			far = min(far, 1+(len(l)-len(low))/4)
		}
		if inside || far <= 1+len(name)/4 {
			all = append(all, candidate{n, far})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.far, b.far), strings.Compare(a.name, b.name))
	})
	var out []string
	for _, c := range all[:min(len(all), 4)] {
		out = append(out, c.name)
	}
	return out
}

// distance is the number of bytes to insert, delete or change, or of
// neighbours to swap, to get from a to b.
func distance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, next[j]+1, row[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
