package kernels

import (
	"cmp"
	"strings"
)

// compareVersions orders two version strings of Debian packages as dpkg does
// (deb-version(7)): runs of digits compare as numbers, letters before other
// characters, and a tilde before everything, even the end.
func compareVersions(a, b string) int {
	ea, a := epoch(a)
	eb, b := epoch(b)
	if c := compareNumbers(ea, eb); c != 0 {
		return c
	}
	ua, ra := revision(a)
	ub, rb := revision(b)
	return cmp.Or(comparePart(ua, ub), comparePart(ra, rb))
}

func epoch(v string) (string, string) {
	if e, rest, ok := strings.Cut(v, ":"); ok {
		return e, rest
	}
	return "", v
}

func revision(v string) (upstream, rev string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, ""
}

func comparePart(a, b string) int {
	for a != "" || b != "" {
		na, nb := digitAt(a), digitAt(b)
		for na > 0 || nb > 0 { // the non-digits before them
			var oa, ob int
			if na > 0 {
				oa, a, na = order(a[0]), a[1:], na-1
			}
			if nb > 0 {
				ob, b, nb = order(b[0]), b[1:], nb-1
			}
			if oa != ob {
				return cmp.Compare(oa, ob)
			}
		}
		na, nb = nonDigitAt(a), nonDigitAt(b)
		if c := compareNumbers(a[:na], b[:nb]); c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return 0
}

// order ranks a character that is no digit; the end of the string ranks 0.
func order(c byte) int {
	switch {
	case c == '~':
		return -1
	case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
		return int(c)
	}
	return int(c) + 256
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// digitAt returns the index of the first digit, or len(s).
func digitAt(s string) int {
	for i := range len(s) {
		if isDigit(s[i]) {
			return i
		}
	}
	return len(s)
}

// nonDigitAt returns the index of the first character that is no digit, or len(s).
func nonDigitAt(s string) int {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return i
		}
	}
	return len(s)
}

// compareNumbers compares strings of digits of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
