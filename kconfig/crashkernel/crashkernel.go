// Package crashkernel parses the kernel's parameter crashkernel=, which
// reserves memory for a capture kernel, and says what a machine of a given size
// would reserve.
//
// The format is that of kernel/crash_core.c (Linux 6.1; kernel/crash_reserve.c
// since v6.9) and Documentation/admin-guide/kdump/kdump.rst:
//
//	SIZE[@OFFSET]
//	START-[END]:SIZE[,…][@OFFSET]    the first range that has the memory counts
//	SIZE,high                        above 4 GiB if possible
//	SIZE,low                         below 4 GiB, beside a high one
//	SIZE,cma                         for user pages, beside another (v6.17)
//
// Numbers are decimal, octal (0…) or hexadecimal (0x…), with a suffix K, M, G,
// T, P or E.
package crashkernel

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kind is which of the forms a Param has.
type Kind byte

// The kinds.
const (
	Simple Kind = iota // SIZE[@OFFSET]
	Ranges             // START-[END]:SIZE[,…][@OFFSET]
	High               // SIZE,high
	Low                // SIZE,low
	CMA                // SIZE,cma
)

// Param is the value of one crashkernel=.
type Param struct {
	Kind      Kind
	Size      uint64  // in bytes; 0 for Ranges
	Ranges    []Range // only for Ranges
	Offset    uint64  // physical address, in bytes
	HasOffset bool
}

// Range is a range of sizes of the machine's memory, half-open, in bytes.
type Range struct {
	Start, End uint64 // End is Unlimited for "START-"
	Size       uint64 // what is reserved
}

// Unlimited is the end of a range that has none.
const Unlimited = math.MaxUint64

// maxRanges bounds a list of ranges: the kernel's command line has 2048 bytes.
const maxRanges = 256

// Parse parses the value of one crashkernel=.
func Parse(s string) (*Param, error) {
	p, err := parse(s)
	if err != nil {
		return nil, fmt.Errorf("crashkernel=%s: %w", s, err)
	}
	return p, nil
}

func parse(s string) (*Param, error) {
	if first, _, _ := strings.Cut(s, ","); strings.Contains(first, ":") {
		return parseRanges(s)
	}
	size, rest, err := number(s)
	if err != nil {
		return nil, err
	}
	p := &Param{Size: size}
	switch {
	case rest == "":
	case rest == ",high":
		p.Kind = High
	case rest == ",low":
		p.Kind = Low
	case rest == ",cma":
		p.Kind = CMA
	case rest[0] == '@':
		if err := p.offset(rest[1:]); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%q where @OFFSET, \",high\", \",low\" or nothing is expected", rest)
	}
	return p, nil
}

func (p *Param) offset(s string) error {
	n, rest, err := number(s)
	if err != nil {
		return err
	}
	if rest != "" {
		return fmt.Errorf("%q behind the offset", rest)
	}
	p.Offset, p.HasOffset = n, true
	return nil
}

func parseRanges(s string) (*Param, error) {
	p := &Param{Kind: Ranges}
	list, at, hasOffset := strings.Cut(s, "@")
	if hasOffset {
		if err := p.offset(at); err != nil {
			return nil, err
		}
	}
	for text := range strings.SplitSeq(list, ",") {
		r, err := parseRange(text)
		if err != nil {
			return nil, err
		}
		if p.Ranges = append(p.Ranges, r); len(p.Ranges) > maxRanges {
			return nil, fmt.Errorf("more than %d ranges", maxRanges)
		}
	}
	return p, nil
}

func parseRange(s string) (Range, error) {
	r := Range{End: Unlimited}
	var err error
	var rest string
	if r.Start, rest, err = number(s); err != nil {
		return Range{}, err
	}
	if !strings.HasPrefix(rest, "-") {
		return Range{}, fmt.Errorf("%q is no range: there is no - behind its start", s)
	}
	if rest = rest[1:]; !strings.HasPrefix(rest, ":") {
		if r.End, rest, err = number(rest); err != nil {
			return Range{}, err
		}
		if r.End <= r.Start {
			return Range{}, fmt.Errorf("the range %q ends before it starts", s)
		}
	}
	if !strings.HasPrefix(rest, ":") {
		return Range{}, fmt.Errorf("%q is no range: there is no size", s)
	}
	if r.Size, rest, err = number(rest[1:]); err != nil {
		return Range{}, err
	}
	if rest != "" {
		return Range{}, fmt.Errorf("%q behind the size of a range", rest)
	}
	return r, nil
}

// number parses a number as memparse of lib/cmdline.c does, and returns what
// follows.
func number(s string) (n uint64, rest string, err error) {
	i, base := 0, 10
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	switch {
	case len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x':
		i, base = 2, 16
		digit = func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }
	case len(s) > 1 && s[0] == '0' && '0' <= s[1] && s[1] <= '7':
		i, base = 1, 8
		digit = func(c byte) bool { return '0' <= c && c <= '7' }
	}
	start := i
	for i < len(s) && digit(s[i]) {
		i++
	}
	if n, err = strconv.ParseUint(s[start:i], base, 64); err != nil {
		if errors.Is(err, strconv.ErrRange) {
			return 0, "", fmt.Errorf("%s is too large", s[:i])
		}
		return 0, "", fmt.Errorf("%q does not begin with a number", s)
	}
	if i < len(s) {
		if unit := strings.IndexByte("kmgtpe", s[i]|0x20); unit >= 0 {
			shift := 10 * (unit + 1)
			if n > math.MaxUint64>>shift {
				return 0, "", fmt.Errorf("%s is too large", s[:i+1])
			}
			n <<= shift
			i++
		}
	}
	return n, s[i:], nil
}

// String renders p so that Parse returns the same.
func (p *Param) String() string {
	var b strings.Builder
	for i, r := range p.Ranges {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(size(r.Start) + "-")
		if r.End != Unlimited {
			b.WriteString(size(r.End))
		}
		b.WriteString(":" + size(r.Size))
	}
	if p.Kind != Ranges {
		b.WriteString(size(p.Size))
	}
	b.WriteString(map[Kind]string{High: ",high", Low: ",low", CMA: ",cma"}[p.Kind])
	if p.HasOffset {
		b.WriteString("@" + size(p.Offset))
	}
	return b.String()
}

// size renders a number of bytes with the largest suffix that leaves it whole.
func size(n uint64) string {
	unit := 0
	for n != 0 && n&1023 == 0 && unit < 6 {
		n >>= 10
		unit++
	}
	s := strconv.FormatUint(n, 10)
	if unit > 0 {
		s += string("KMGTPE"[unit-1])
	}
	return s
}

// Reserve returns how many bytes a machine with memory bytes of "System RAM"
// reserves for p; 0 if no range has it. The kernel rounds the memory up to 128 MiB
// first, as the firmware keeps some of it (parse_crashkernel_mem), and gives up at
// a range, up to the one that has it, that reserves more than there is.
func (p *Param) Reserve(memory uint64) uint64 {
	if p.Kind != Ranges {
		return p.Size
	}
	total := roundUp(memory)
	for _, r := range p.Ranges {
		if r.Size >= total {
			return 0
		}
		if total >= r.Start && total < r.End {
			return r.Size
		}
	}
	return 0
}

func roundUp(memory uint64) uint64 {
	const grain = 128 << 20
	if memory > math.MaxUint64-grain {
		return memory
	}
	return (memory + grain - 1) / grain * grain
}

// Check says, one sentence each, what will go wrong with p on an x86-64 machine
// with memory bytes of memory whose capture kernel needs need bytes.
func (p *Param) Check(memory, need uint64) []string {
	var bad []string
	got := p.Reserve(memory)
	add := func(format string, a ...any) { bad = append(bad, fmt.Sprintf(format, a...)) }
	switch {
	case p.Kind == Low:
		add("%s alone reserves nothing: it goes with SIZE,high", p)
		return bad
	case p.Kind == CMA:
		add("%s alone is no place for a kernel: it goes beside another crashkernel=", p)
		return bad
	case got == 0 && p.Kind == Ranges:
		add("%s reserves nothing with %s of memory", p, size(memory))
		return bad
	case got == 0:
		add("%s reserves nothing", p)
		return bad
	case got >= memory:
		add("%s is more than the %s there are", size(got), size(memory))
	case got > memory/2:
		add("%s is more than half of %s", size(got), size(memory))
	case got < need:
		add("%s is less than the %s that the capture kernel needs", size(got), size(need))
	}
	if p.HasOffset && (p.Offset > memory || got > memory-p.Offset) {
		add("%s from %s on is beyond the end of %s", size(got), size(p.Offset), size(memory))
	}
	const align = 1 << 20 // reserve_crashkernel of arch/x86/kernel/setup.c
	if p.HasOffset && p.Offset%align != 0 {
		add("the offset %s is not a multiple of %s", size(p.Offset), size(align))
	}
	for i, r := range p.Ranges {
		for _, before := range p.Ranges[:i] {
			if r.Start >= before.Start && r.End <= before.End {
				add("the range %s- is never used: one before it has all of it", size(r.Start))
				break
			}
		}
	}
	return bad
}

// FromCommandLine returns the parameters crashkernel= of a kernel's command
// line. The kernel takes the last one of each kind.
func FromCommandLine(cmdline string) ([]*Param, error) {
	var out []*Param
	for word := range strings.FieldsSeq(cmdline) {
		if word == "--" {
			break // what follows is for init
		}
		if v, ok := strings.CutPrefix(word, "crashkernel="); ok {
			p, err := Parse(v)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}
