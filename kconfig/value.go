package kconfig

import "strconv"

// value returns the number that s is, if it is one.
func value(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		u, uerr := strconv.ParseUint(s, 0, 64)
		return int64(u), uerr == nil
	}
	return n, true
}
