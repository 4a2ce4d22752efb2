package disasm

import (
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// text returns in as binutils prints it, without the address of a branch
// target. Name is what decode returned, code holds the instruction's bytes.
//
// Prefixes, suffix and the order of the operands come from x86asm's own GNU
// syntax; numbers and memory operands are printed here.
func text(in *x86asm.Inst, name string, code []byte) string {
	if in.Op == 0 {
		return name
	}
	prefixes, mnemonic, operands := split(x86asm.GNUSyntax(*in, 0, nil))
	switch {
	case strings.HasPrefix(mnemonic, "vpmovm2"):
		// The mask register is the source, not a mask.
		dst, mask, _ := strings.Cut(operands[0], " ")
		operands = []string{strings.Trim(mask, "{}"), dst}
	case name != "":
		mnemonic = name
	case in.Op == x86asm.NOP && string(code) == "\x66\x90":
		return "xchg   %ax,%ax"
	default:
		mnemonic = respell(in, mnemonic)
	}
	if name, ok := carryless(in); ok {
		mnemonic, operands = name, operands[1:]
	}
	segments := reprint(in, operands, code)
	prefixes = strings.ReplaceAll(prefixes, "data32 ", "data16 ")
	head := prefixes + segments + mnemonic
	if len(operands) == 0 {
		return head
	}
	return fmt.Sprintf("%-6s %s", head, strings.Join(operands, ","))
}

// split cuts an instruction's text into the prefixes with a blank after each,
// the mnemonic, and the operands.
func split(s string) (prefixes, mnemonic string, operands []string) {
	end := 0 // of the mnemonic
	for i := 0; i < len(s) && 'a' <= s[i] && s[i] <= 'z'; {
		n := strings.IndexByte(s[i:]+" ", ' ')
		prefixes, mnemonic, end = s[:i], s[i:i+n], i+n
		i = end + 1
	}
	rest := strings.TrimSpace(s[end:])
	depth, start := 0, 0
	for i := range len(rest) {
		switch rest[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				operands = append(operands, rest[start:i])
				start = i + 1
			}
		}
	}
	if rest != "" {
		operands = append(operands, rest[start:])
	}
	return prefixes, mnemonic, operands
}

// respell returns binutils' name for an instruction that x86asm calls mnemonic.
func respell(in *x86asm.Inst, mnemonic string) string {
	switch in.Op {
	case x86asm.CALL, x86asm.JMP, x86asm.LJMP, x86asm.LCALL, x86asm.RET, x86asm.LEAVE,
		x86asm.PUSH, x86asm.POP, x86asm.PUSHFQ, x86asm.POPFQ, x86asm.XBEGIN:
		return strings.TrimSuffix(mnemonic, "q")
	case x86asm.LGDT, x86asm.LIDT, x86asm.SGDT, x86asm.SIDT:
		return strings.TrimSuffix(mnemonic, "l")
	case x86asm.ANDN, x86asm.BEXTR, x86asm.BLSI, x86asm.BLSMSK, x86asm.BLSR, x86asm.BZHI, x86asm.MULX,
		x86asm.PDEP, x86asm.PEXT, x86asm.RORX, x86asm.SARX, x86asm.SHLX, x86asm.SHRX:
		return strings.ToLower(in.Op.String()) // without a suffix
	case x86asm.CDQE:
		return "cltq"
	case x86asm.MOVSXD:
		if in.DataSize == 64 {
			return "movslq"
		}
	case x86asm.MOV:
		// The only moves that hold eight bytes of immediate or of address.
		if op := in.Opcode >> 24; op&^7 == 0xb8 && in.DataSize == 64 || op&^3 == 0xa0 && in.AddrSize == 64 {
			return "movabs"
		}
	case x86asm.CRC32:
		if _, ok := in.Args[1].(x86asm.Reg); ok {
			return "crc32"
		}
	}
	return mnemonic
}

// reprint replaces the operands that binutils spells otherwise. It returns the
// segment prefixes that mean nothing in 64 bit mode, which binutils puts before
// the mnemonic, with a blank after each.
func reprint(in *x86asm.Inst, operands []string, code []byte) (segments string) {
	var mems []x86asm.Mem // last one first, like the operands
	var imms []x86asm.Imm
	for i := len(in.Args) - 1; i >= 0; i-- {
		switch a := in.Args[i].(type) {
		case x86asm.Mem:
			mems = append(mems, a)
		case x86asm.Imm:
			imms = append(imms, a)
		}
	}
	for i, s := range operands {
		s, star := strings.CutPrefix(s, "*")
		seg, _, hasSeg := strings.Cut(s, ":")
		isReg := !hasSeg && strings.HasPrefix(s, "%")
		switch {
		case strings.HasPrefix(s, "$") && len(imms) > 0:
			s = fmt.Sprintf("$%#x", immediate(in, imms[0]))
			imms = imms[1:]
		case strings.HasPrefix(s, ".+") || strings.HasPrefix(s, ".-"):
			s = "" // the caller adds the target
		case !isReg && s != "(%dx)" && len(mems) > 0:
			m, mask := mems[0], ""
			mems = mems[1:]
			if j := strings.IndexByte(s, '{'); j >= 0 {
				mask = s[j:] // of AVX-512, or a broadcast
			}
			s = memory(in, m, code) + mask
			switch {
			case !hasSeg || prefixVEX(code) > 0: // x86asm takes the bytes of VEX for segments
			case seg == "%fs" || seg == "%gs" || m.Segment != 0:
				s = seg + ":" + s
			default:
				segments += seg[1:] + " "
			}
		}
		if star {
			s = "*" + s
		}
		operands[i] = strings.ReplaceAll(s, " {", "{")
	}
	return segments
}

// immediate returns v cut to the width of the operation.
func immediate(in *x86asm.Inst, v x86asm.Imm) uint64 {
	bits := 64
	for _, a := range in.Args {
		switch a := a.(type) {
		case x86asm.Reg:
			switch {
			case a <= x86asm.R15B:
				bits = 8
			case a <= x86asm.R15W:
				bits = 16
			case a <= x86asm.R15L:
				bits = 32
			}
		case x86asm.Mem:
			bits = 8 * in.MemBytes
		default:
			continue
		}
		break
	}
	if bits == 0 || bits >= 64 {
		return uint64(v)
	}
	return uint64(v) & (1<<bits - 1)
}

// memory returns the operand m without its segment.
func memory(in *x86asm.Inst, m x86asm.Mem, code []byte) string {
	if absolute(in) {
		return fmt.Sprintf("%#x", uint64(m.Disp))
	}
	disp := m.Disp
	if m.Base == 0 && m.Index == 0 {
		return fmt.Sprintf("%#x", uint64(disp))
	}
	s := ""
	switch mod := modrm(code) >> 6; {
	case disp < 0:
		s = fmt.Sprintf("-%#x", -disp)
	case disp > 0 || mod == 1 || mod == 2 || m.Base == 0 || m.Base == x86asm.RIP:
		s = fmt.Sprintf("%#x", disp)
	}
	base, index := reg(m.Base), reg(m.Index)
	if m.Index == 0 {
		// Binutils shows an index byte that says "none" where it is not needed.
		if m.Scale == 0 || m.Scale == 1 && (m.Base == x86asm.RSP || m.Base == x86asm.R12) {
			return s + "(" + base + ")"
		}
		index = "%riz"
	}
	return fmt.Sprintf("%s(%s,%s,%d)", s, base, index, m.Scale)
}

func reg(r x86asm.Reg) string {
	switch {
	case r == 0:
		return ""
	case x86asm.R8L <= r && r <= x86asm.R15L:
		return fmt.Sprintf("%%r%dd", r-x86asm.R8L+8)
	}
	return "%" + strings.ToLower(r.String())
}

// modrm returns the ModRM byte of the instruction code, 0 if it has none.
func modrm(code []byte) byte {
	op := parse(code).opcode
	n := 1 // bytes before the ModRM byte
	switch {
	case len(op) == 0:
		return 0
	case prefixVEX(op) > 0:
		n = prefixVEX(op) + 1
	case op[0] == 0x0f && len(op) > 1 && (op[1] == 0x38 || op[1] == 0x3a):
		n = 3
	case op[0] == 0x0f:
		n = 2
	case 0xa4 <= op[0] && op[0] <= 0xaf || 0x6c <= op[0] && op[0] <= 0x6f || op[0] == 0xd7:
		return 0 // string operations
	}
	if n >= len(op) {
		return 0
	}
	return op[n]
}

// carryless returns the name that binutils gives a carry-less multiplication of
// two given quadwords, in place of the first operand.
func carryless(in *x86asm.Inst) (string, bool) {
	if in.Op != x86asm.VPCLMULQDQ {
		return "", false
	}
	half := [2]string{"l", "h"}
	imm, ok := in.Args[3].(x86asm.Imm)
	if !ok || imm&^0x11 != 0 {
		return "", false
	}
	return "vpclmul" + half[imm&1] + "q" + half[imm>>4] + "qdq", true
}
