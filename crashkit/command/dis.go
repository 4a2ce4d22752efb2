package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/disasm"
	"crashlab/crashkit/sym"
)

func disCommand() *Command {
	return &Command{
		Name:     "dis",
		Summary:  "disassemble",
		Operands: "ADDRESS|SYMBOL [COUNT]",
		Min:      1, Max: 2,
		Flags: []Flag{
			{"r", "", "from the start of the function up to and including ADDRESS"},
			{"l", "", "file and line where they change, by debug information; after < the line that what was there was inlined into"},
			{"f", "", "from ADDRESS to the end of the function"},
			{"x", "", "offsets in hex"},
		},
		Help: "Disassembles the code in the dump, as the kernel had patched it while it ran. A symbol alone shows the whole " +
			"function, an address alone one instruction, COUNT that many. Code bytes that are no known instruction show as (bad).",
		Examples: []string{"dis schedule 6", "dis -r schedule+9"},
		run:      dis,
	}
}

// code is what dis disassembled.
type code struct {
	Instructions []instruction `json:"instructions"`

	hex bool
}

type instruction struct {
	Address uint64  `json:"address"`
	Symbol  string  `json:"symbol"` // the function it is in; "" if none
	Offset  uint64  `json:"offset"` // in that function
	Bytes   []byte  `json:"bytes"`
	Text    string  `json:"text"`
	Target  *uint64 `json:"target,omitempty"` // of a direct branch or a %rip-relative operand
	// Places is where the instruction comes from, innermost first.
	Places []debuginfo.Place `json:"places,omitempty"`
}

// maxCode bounds the code that one dis reads, in bytes.
const maxCode = 1 << 20

func dis(ctx context.Context, env *Env, args *Args) (Result, error) {
	at, err := env.address(args.Operands[0])
	if err != nil {
		return nil, err
	}
	fn, off, inFn := env.Program.FindSymbol(at)
	if args.Has("r") && args.Has("f") {
		return nil, args.usage("-r and -f exclude each other")
	}
	if (args.Has("r") || args.Has("f")) && !inFn {
		return nil, fmt.Errorf("no function covers %v", at)
	}
	count := uint64(0)
	if len(args.Operands) > 1 {
		if count, err = number(args.Operands[1]); err != nil || count == 0 || count > maxCode {
			return nil, args.usage("COUNT %q is not a number from 1 to %d", args.Operands[1], maxCode)
		}
	}
	d := &disassembler{env: env, fn: fn, out: &code{Instructions: []instruction{}, hex: args.Has("x")}}
	switch {
	case args.Has("r"):
		err = d.run(ctx, fn.Addr, at+1, 0)
	case args.Has("f") || count == 0 && inFn && off == 0:
		err = d.run(ctx, at, fn.End(), count)
		if err == nil && count == 0 {
			d.trimPadding()
		}
	default:
		err = d.run(ctx, at, at+maxCode, max(count, 1))
	}
	if len(d.out.Instructions) == 0 {
		return nil, err
	}
	if args.Has("l") {
		for i := range d.out.Instructions {
			in := &d.out.Instructions[i]
			var perr error
			if in.Places, perr = env.places(addr.Virt(in.Address)); perr != nil {
				return d.out, errors.Join(err, perr)
			}
		}
	}
	return d.out, err
}

type disassembler struct {
	env *Env
	fn  sym.Symbol
	out *code
}

// run disassembles what begins in [at, end), at most count instructions unless
// that is 0.
func (d *disassembler) run(ctx context.Context, at, end addr.Virt, count uint64) error {
	if end-at > maxCode && count == 0 {
		return fmt.Errorf("%s is %d bytes large: give a COUNT", d.fn.Name, end-at)
	}
	for n := uint64(0); at < end && (count == 0 || n < count); n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := d.fetch(at)
		if err != nil {
			return err
		}
		in, err := disasm.Decode(b, at, d.name)
		if err != nil {
			return err
		}
		if in.IsFtraceNop() && at == d.fn.Addr {
			in.Text += " [FTRACE NOP]"
		}
		if n > 0 && end == d.fn.End() && addr.Virt(in.Len) > end-at {
			break // what lies behind the function is none of its code
		}
		row := instruction{Address: uint64(at), Bytes: in.Bytes, Text: in.Text}
		if s, off, ok := d.env.Program.FindSymbol(at); ok {
			row.Symbol, row.Offset = s.Name, off
		}
		if in.Target != nil {
			v := uint64(*in.Target)
			row.Target = &v
		}
		d.out.Instructions = append(d.out.Instructions, row)
		at += addr.Virt(in.Len)
	}
	return nil
}

// fetch reads the code at v, as much as an instruction can need or as there is
// up to the end of the page.
func (d *disassembler) fetch(v addr.Virt) ([]byte, error) {
	b := make([]byte, disasm.MaxLen)
	err := d.env.Program.Read(v, b)
	if left := int(4096 - v%4096); err != nil && left < len(b) {
		b = b[:left]
		err = d.env.Program.Read(v, b)
	}
	return b, err
}

// name is the disasm.Symbolizer for the operands.
func (d *disassembler) name(v addr.Virt) (string, uint64, bool) {
	s, off, ok := d.env.Program.FindSymbol(v)
	if ok && off != 0 && d.out.hex {
		return fmt.Sprintf("%s+%#x", s.Name, off), 0, true
	}
	return s.Name, off, ok
}

// trimPadding drops what fills the space between a function and the next one:
// kallsyms counts it as the function's.
func (d *disassembler) trimPadding() {
	all := d.out.Instructions
	for len(all) > 1 && padding(all[len(all)-1]) {
		all = all[:len(all)-1]
	}
	d.out.Instructions = all
}

func padding(in instruction) bool {
	if len(bytes.Trim(in.Bytes, "\x00")) == 0 {
		return true
	}
	text := in.Text
	for strings.HasPrefix(text, "data16 ") || strings.HasPrefix(text, "cs ") {
		_, text, _ = strings.Cut(text, " ")
	}
	op, operands, _ := strings.Cut(text, " ")
	return op == "int3" || strings.HasPrefix(op, "nop") || op == "xchg" && strings.TrimSpace(operands) == "%ax,%ax"
}

// WriteText implements Result.
func (c *code) WriteText(t *Text) {
	last := ""
	for _, in := range c.Instructions {
		if at := shortPlace(in.Places); at != "" && at != last {
			t.String(at + "\n")
			last = at
		}
		switch {
		case in.Symbol == "":
			t.Printf("%#x", in.Address)
		case in.Offset == 0:
			t.Printf("%#x <%s>", in.Address, in.Symbol)
		case c.hex:
			t.Printf("%#x <%s+%#x>", in.Address, in.Symbol, in.Offset)
		default:
			t.Printf("%#x <%s+%d>", in.Address, in.Symbol, in.Offset)
		}
		t.Printf(":\t%s\n", in.Text)
	}
}
