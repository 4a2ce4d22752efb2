package qemu

// cleaner removes from a byte stream what firmware and boot loaders write for
// terminals: the escape sequences of ECMA-48 (CSI, OSC and the short ones),
// carriage returns and other control characters. Newlines and tabs stay.
type cleaner struct{ state cleanState }

type cleanState uint8

const (
	cleanText   cleanState = iota
	cleanEscape            // after ESC
	cleanCSI               // after ESC [, until a byte from @ to ~
	cleanString            // after ESC ] and the like, until BEL or ESC \
)

// keep takes the next byte and reports whether it belongs to the text.
func (c *cleaner) keep(b byte) bool {
	const esc, bel = 0x1b, 0x07
	switch c.state {
	case cleanText:
		if b == esc {
			c.state = cleanEscape
		}
		return b == '\n' || b == '\t' || b >= ' ' && b != 0x7f
	case cleanEscape:
		switch {
		case b == '[':
			c.state = cleanCSI
		case b == ']' || b == 'P' || b == '^' || b == '_' || b == 'X':
			c.state = cleanString
		case b >= 0x30: // a final byte; those below only announce one
			c.state = cleanText
		}
	case cleanCSI:
		if b >= '@' && b <= '~' {
			c.state = cleanText
		}
	case cleanString:
		switch b {
		case bel:
			c.state = cleanText
		case esc:
			c.state = cleanEscape
		}
	}
	// A sequence never goes over a line end: rather show its rest than lose
	// the kernel's next message.
	if b == '\n' {
		c.state = cleanText
		return true
	}
	return false
}
