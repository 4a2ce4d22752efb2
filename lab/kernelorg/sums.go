package kernelorg

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Version is the version of a release: "6.1.192", "6.19".
type Version string

var versionForm = regexp.MustCompile(`^[1-9][0-9]?\.[0-9]{1,3}(\.[0-9]{1,4})?$`)

// series returns the beginning of the folder's name: 6 of "6.1".
func (v Version) major() int {
	n, _, _ := strings.Cut(string(v), ".")
	i, err := strconv.Atoi(n)
	if err != nil {
		return 0
	}
	return i
}

// compare orders versions by their numbers.
func (v Version) compare(w Version) int {
	return slices.CompareFunc(strings.Split(string(v), "."), strings.Split(string(w), "."), func(a, b string) int {
		x, err1 := strconv.Atoi(a)
		y, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil {
			return strings.Compare(a, b)
		}
		return cmp.Compare(x, y)
	})
}

// parseSums reads a list of SHA-256 sums as sha256sum writes it, and returns the
// sums of release archives by version.
func parseSums(text []byte) (map[Version]string, error) {
	sums := make(map[Version]string)
	sc := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimRight(sc.Text(), "\r")
		if line == "" {
			continue
		}
		sum, name, ok := strings.Cut(line, " ")
		name = strings.TrimLeft(name, " *")
		if b, err := hex.DecodeString(sum); !ok || err != nil || len(b) != 32 {
			return nil, fmt.Errorf("line %d is no SHA-256 sum: %.80q", n, line)
		}
		v, ok := strings.CutPrefix(name, "linux-")
		if v, isTar := strings.CutSuffix(v, ".tar.xz"); ok && isTar && versionForm.MatchString(v) {
			if old, twice := sums[Version(v)]; twice && old != strings.ToLower(sum) {
				return nil, fmt.Errorf("there are two sums of %s", name)
			}
			sums[Version(v)] = strings.ToLower(sum)
		}
	}
	return sums, sc.Err()
}
