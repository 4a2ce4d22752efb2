package kconfig

import (
	"fmt"
	"strconv"
	"strings"
)

// Change is an option that two configurations set differently.
type Change struct {
	Name     string
	From, To string // values as in a .config; n where it is not set or unknown
}

func (c Change) String() string { return fmt.Sprintf("CONFIG_%s: %s -> %s", c.Name, c.From, c.To) }

// Diff returns what must be changed to get from the configuration a to b, in
// the order of the names. It compares by meaning: an option that is missing is
// one that is not set, and numbers may be written in several ways.
func Diff(a, b *Config) []Change {
	all := a.Clone()
	for _, n := range b.Names() {
		all.Set(n, b.Value(n))
	}
	var changes []Change
	for _, n := range all.Names() {
		if from, to := a.Value(n), b.Value(n); !same(from, to) {
			changes = append(changes, Change{n, from, to})
		}
	}
	return changes
}

// same reports whether two values mean the same.
func same(a, b string) bool {
	if a == b {
		return true
	}
	x, okx := number(a)
	y, oky := number(b)
	return okx && oky && x == y
}

// number returns the value of digits that say themselves how they are meant.
func number(s string) (string, bool) {
	digits, neg := strings.CutPrefix(s, "-")
	u, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		h, hex := strings.CutPrefix(strings.ToLower(digits), "0x")
		if u, err = strconv.ParseUint(h, 16, 64); err != nil || !hex {
			return "", false
		}
	}
	n := strconv.FormatUint(u, 10)
	if neg && u != 0 {
		n = "-" + n
	}
	return n, true
}
