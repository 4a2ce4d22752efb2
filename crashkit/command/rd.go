package command

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"crashlab/crashkit/addr"
)

func rdCommand() *Command {
	return &Command{
		Name:     "rd",
		Summary:  "read memory",
		Operands: "ADDRESS|SYMBOL [COUNT]",
		Min:      1, Max: 2,
		Flags: []Flag{
			{"8", "", "units of 8 bits"},
			{"16", "", "units of 16 bits"},
			{"32", "", "units of 32 bits"},
			{"64", "", "units of 64 bits, as without a flag"},
			{"x", "", "no ASCII column"},
			{"d", "", "signed decimal numbers"},
			{"D", "", "unsigned decimal numbers"},
			{"s", "", "show 64-bit numbers that are kernel addresses as symbols"},
			{"a", "", "show printable text; without COUNT, up to the first byte that is none"},
			{"N", "", "the numbers are in network byte order"},
			{"p", "", "ADDRESS is a physical address"},
			{"e", "ADDRESS", "read up to, not including, this address"},
			{"o", "OFFSET", "add this to ADDRESS"},
		},
		Help: "Shows memory as numbers, little-endian, with the text the bytes may be beside them. ADDRESS is virtual, of the " +
			"kernel's half. Memory that the dump does not have ends the output with an error that says why: nothing is ever shown as zero for want of it.",
		Examples: []string{"rd -s modules 2", "rd -a linux_banner", "rd -32 jiffies_64 2"},
		run:      rd,
	}
}

// maxRead bounds what one rd reads, in bytes.
const maxRead = 256 << 20

// memoryResult is what rd read.
type memoryResult struct {
	Address  uint64   `json:"address"`
	Physical bool     `json:"physical"`
	Unit     int      `json:"unit"` // bytes of each value
	Values   []uint64 `json:"values"`
	Symbols  []string `json:"symbols,omitempty"` // with -s: of each value, "" if none
	Text     string   `json:"text,omitempty"`    // with -a

	style readStyle
	data  []byte
}

type readStyle struct{ noASCII, decimal, unsigned, symbols, text bool }

func rd(ctx context.Context, env *Env, args *Args) (Result, error) {
	r := &memoryResult{Unit: 8, Physical: args.Has("p"), style: readStyle{
		noASCII: args.Has("x"), decimal: args.Has("d"), unsigned: args.Has("D"), symbols: args.Has("s"), text: args.Has("a"),
	}}
	for name, n := range map[string]int{"8": 1, "16": 2, "32": 4} {
		if args.Has(name) {
			r.Unit = n
		}
	}
	if r.style.text {
		r.Unit = 1
	}
	if r.style.symbols && r.Unit != 8 {
		return nil, args.usage("-s is for units of 64 bits")
	}
	size, err := rdRange(env, args, r)
	if err != nil {
		return nil, err
	}
	err = r.read(ctx, env, size, args.Has("N"))
	if r.style.text {
		r.Text = string(r.data)
	}
	if len(r.Values) == 0 {
		return nil, err
	}
	return r, err
}

// rdRange sets where to read and returns how many bytes; 0 means text to its end.
func rdRange(env *Env, args *Args, r *memoryResult) (uint64, error) {
	at, err := env.address(args.Operands[0])
	if err != nil {
		return 0, err
	}
	if s, ok := args.Value("o"); ok {
		off, err := number(s)
		if err != nil {
			return 0, args.usage("-o: %v", err)
		}
		at += addr.Virt(off)
	}
	r.Address = uint64(at)
	count := uint64(1)
	if r.style.text {
		count = 0
	}
	if len(args.Operands) > 1 {
		if count, err = number(args.Operands[1]); err != nil || count == 0 {
			return 0, args.usage("COUNT %q is not a positive number", args.Operands[1])
		}
	}
	if s, ok := args.Value("e"); ok {
		end, err := env.address(s)
		if err != nil {
			return 0, err
		}
		if end <= at {
			return 0, args.usage("the end %v is not after the start %v", end, at)
		}
		count = (uint64(end-at) + uint64(r.Unit) - 1) / uint64(r.Unit)
	}
	if hi, size := bits.Mul64(count, uint64(r.Unit)); hi != 0 || size > maxRead {
		return 0, args.usage("%d units are more than the %d MB that one command reads", count, maxRead>>20)
	}
	return count * uint64(r.Unit), nil
}

// read fills r with size bytes from its address, as far as they can be read.
// Size 0 means text up to its end.
func (r *memoryResult) read(ctx context.Context, env *Env, size uint64, bigEndian bool) error {
	memory := func(at uint64, b []byte) error { return env.Program.Read(addr.Virt(at), b) }
	if r.Physical {
		memory = func(at uint64, b []byte) error { return env.Program.Image.ReadPhys(addr.Phys(at), b) }
	}
	toEnd := size == 0
	if toEnd {
		size = maxRead
	}
	buf := make([]byte, 4096)
	for at := r.Address; size > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Never past a page boundary, so that all that can be read is; a unit
		// that crosses one is read as a whole.
		n := min(size, 4096-at%4096)
		n = max(n-n%uint64(r.Unit), uint64(r.Unit))
		if toEnd {
			n = min(n, 64-at%64)
		}
		b := buf[:n]
		if err := memory(at, b); err != nil {
			return err
		}
		for len(b) > 0 {
			if toEnd && !printable(b[0]) {
				return nil
			}
			r.Values = append(r.Values, unit(b[:r.Unit], bigEndian))
			r.data = append(r.data, b[:r.Unit]...)
			if r.style.symbols {
				r.Symbols = append(r.Symbols, env.symbolic(addr.Virt(r.Values[len(r.Values)-1]), false))
			}
			b = b[r.Unit:]
		}
		at, size = at+n, size-n
	}
	return nil
}

func unit(b []byte, bigEndian bool) uint64 {
	var v [8]byte
	copy(v[:], b)
	n := binary.LittleEndian.Uint64(v[:])
	if bigEndian {
		n = bits.ReverseBytes64(n) >> (64 - 8*len(b))
	}
	return n
}

func printable(c byte) bool { return c >= ' ' && c <= '~' }

func ascii(b []byte) string {
	s := bytes.Clone(b)
	for i, c := range s {
		if !printable(c) {
			s[i] = '.'
		}
	}
	return string(s)
}

// WriteText implements Result.
func (r *memoryResult) WriteText(t *Text) {
	if r.style.text {
		const line = 60
		for i := 0; i < len(r.data) && t.Err() == nil; i += line {
			t.Printf("%016x:  %s\n", r.Address+uint64(i), ascii(r.data[i:min(i+line, len(r.data))]))
		}
		return
	}
	perLine := 16 / r.Unit
	for i := 0; i < len(r.Values) && t.Err() == nil; i += perLine {
		var b strings.Builder
		n := min(perLine, len(r.Values)-i)
		for j := range perLine {
			s := ""
			if j < n {
				s = r.field(i + j)
			}
			fmt.Fprintf(&b, "%-*s ", r.width(), s)
		}
		if !r.style.noASCII && !r.style.decimal && !r.style.unsigned && !r.style.symbols {
			b.WriteString("  " + ascii(r.data[i*r.Unit:(i+n)*r.Unit]))
		}
		t.Printf("%016x:  %s\n", r.Address+uint64(i*r.Unit), strings.TrimRight(b.String(), " "))
	}
}

// width returns the columns of a number.
func (r *memoryResult) width() int {
	switch {
	case r.style.unsigned && r.Unit == 8:
		return 20
	case r.style.decimal, r.style.unsigned:
		return map[int]int{1: 3, 2: 5, 4: 12, 8: 15}[r.Unit] // as crash has it; -d may need more
	}
	return 2 * r.Unit
}

func (r *memoryResult) field(i int) string {
	v := r.Values[i]
	switch {
	case r.style.symbols && r.Symbols[i] != "":
		return r.Symbols[i]
	case r.style.unsigned:
		return fmt.Sprintf("%*d", r.width(), v)
	case r.style.decimal:
		shift := 64 - 8*r.Unit
		return fmt.Sprintf("%*d", r.width(), int64(v<<shift)>>shift)
	}
	return fmt.Sprintf("%0*x", r.width(), v)
}
