package disasm

import (
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// shape says which operands follow an opcode. All but fixed are those of a
// common instruction, whose opcode then stands in for the decoding.
type shape uint8

const (
	fixed shape = iota // none: the opcode is the whole instruction
	rm                 // register or memory, as of NOT
	rmReg              // register into register or memory, as of MOV
	regRM              // register or memory into register, as of MOV
)

// modes of the ModRM byte that an opcode is limited to.
const (
	anyMode = iota
	memMode
	regMode
)

// extra is an instruction that x86asm does not decode, or decodes as another.
type extra struct {
	prefix byte   // mandatory prefix 0x66, 0xf2 or 0xf3; 0 for none
	opcode string // following the prefixes
	shape  shape
	reg    int8 // ModRM reg field that extends the opcode, -1 for none
	mode   int8
	wide   bool   // operands have 64 bits without REX.W
	name   string // "32 bit name|64 bit name" where they differ
}

// extras is sorted by opcode. The encodings are those of the Intel SDM volume 2
// and the AMD APM volume 3; LKGS and ERET are in Intel's FRED specification.
var extras = []extra{
	{0xf2, "\x0f\x00", rm, 6, anyMode, false, "lkgs"},
	{0, "\x0f\x01\xc0", fixed, -1, anyMode, false, "enclv"},
	{0, "\x0f\x01\xc1", fixed, -1, anyMode, false, "vmcall"},
	{0, "\x0f\x01\xc2", fixed, -1, anyMode, false, "vmlaunch"},
	{0, "\x0f\x01\xc3", fixed, -1, anyMode, false, "vmresume"},
	{0, "\x0f\x01\xc4", fixed, -1, anyMode, false, "vmxoff"},
	{0, "\x0f\x01\xc5", fixed, -1, anyMode, false, "pconfig"},
	{0, "\x0f\x01\xc6", fixed, -1, anyMode, false, "wrmsrns"},
	{0xf2, "\x0f\x01\xc6", fixed, -1, anyMode, false, "rdmsrlist"},
	{0xf3, "\x0f\x01\xc6", fixed, -1, anyMode, false, "wrmsrlist"},
	{0, "\x0f\x01\xc8", fixed, -1, anyMode, false, "monitor %rax,%ecx,%edx"},
	{0, "\x0f\x01\xc9", fixed, -1, anyMode, false, "mwait  %eax,%ecx"},
	{0, "\x0f\x01\xca", fixed, -1, anyMode, false, "clac"},
	{0xf2, "\x0f\x01\xca", fixed, -1, anyMode, false, "erets"},
	{0xf3, "\x0f\x01\xca", fixed, -1, anyMode, false, "eretu"},
	{0, "\x0f\x01\xcb", fixed, -1, anyMode, false, "stac"},
	{0x66, "\x0f\x01\xcc", fixed, -1, anyMode, false, "tdcall"},
	{0x66, "\x0f\x01\xcd", fixed, -1, anyMode, false, "seamret"},
	{0x66, "\x0f\x01\xce", fixed, -1, anyMode, false, "seamops"},
	{0, "\x0f\x01\xcf", fixed, -1, anyMode, false, "encls"},
	{0x66, "\x0f\x01\xcf", fixed, -1, anyMode, false, "seamcall"},
	{0, "\x0f\x01\xd4", fixed, -1, anyMode, false, "vmfunc"},
	{0, "\x0f\x01\xd7", fixed, -1, anyMode, false, "enclu"},
	{0, "\x0f\x01\xd8", fixed, -1, anyMode, false, "vmrun"},
	{0, "\x0f\x01\xd9", fixed, -1, anyMode, false, "vmmcall"},
	{0xf2, "\x0f\x01\xd9", fixed, -1, anyMode, false, "vmgexit"},
	{0xf3, "\x0f\x01\xd9", fixed, -1, anyMode, false, "vmgexit"},
	{0, "\x0f\x01\xda", fixed, -1, anyMode, false, "vmload"},
	{0, "\x0f\x01\xdb", fixed, -1, anyMode, false, "vmsave"},
	{0, "\x0f\x01\xdc", fixed, -1, anyMode, false, "stgi"},
	{0, "\x0f\x01\xdd", fixed, -1, anyMode, false, "clgi"},
	{0, "\x0f\x01\xde", fixed, -1, anyMode, false, "skinit"},
	{0, "\x0f\x01\xdf", fixed, -1, anyMode, false, "invlpga"},
	{0, "\x0f\x01\xe8", fixed, -1, anyMode, false, "serialize"},
	{0xf2, "\x0f\x01\xe8", fixed, -1, anyMode, false, "xsusldtrk"},
	{0xf3, "\x0f\x01\xe8", fixed, -1, anyMode, false, "setssbsy"},
	{0xf2, "\x0f\x01\xe9", fixed, -1, anyMode, false, "xresldtrk"},
	{0xf3, "\x0f\x01\xea", fixed, -1, anyMode, false, "saveprevssp"},
	{0xf3, "\x0f\x01\xec", fixed, -1, anyMode, false, "uiret"},
	{0xf3, "\x0f\x01\xed", fixed, -1, anyMode, false, "testui"},
	{0, "\x0f\x01\xee", fixed, -1, anyMode, false, "rdpkru"},
	{0xf3, "\x0f\x01\xee", fixed, -1, anyMode, false, "clui"},
	{0, "\x0f\x01\xef", fixed, -1, anyMode, false, "wrpkru"},
	{0xf3, "\x0f\x01\xef", fixed, -1, anyMode, false, "stui"},
	{0, "\x0f\x01\xfa", fixed, -1, anyMode, false, "monitorx %rax,%ecx,%edx"},
	{0xf3, "\x0f\x01\xfa", fixed, -1, anyMode, false, "mcommit"},
	{0, "\x0f\x01\xfb", fixed, -1, anyMode, false, "mwaitx %eax,%ecx,%ebx"},
	{0, "\x0f\x01\xfc", fixed, -1, anyMode, false, "clzero"},
	{0, "\x0f\x01\xfd", fixed, -1, anyMode, false, "rdpru"},
	{0, "\x0f\x01\xfe", fixed, -1, anyMode, false, "invlpgb"},
	{0xf2, "\x0f\x01\xfe", fixed, -1, anyMode, false, "rmpupdate"},
	{0xf3, "\x0f\x01\xfe", fixed, -1, anyMode, false, "rmpadjust"},
	{0, "\x0f\x01\xff", fixed, -1, anyMode, false, "tlbsync"},
	{0xf2, "\x0f\x01\xff", fixed, -1, anyMode, false, "pvalidate"},
	{0xf3, "\x0f\x01\xff", fixed, -1, anyMode, false, "psmash"},
	{0xf3, "\x0f\x01", rm, 5, memMode, true, "rstorssp"},
	{0, "\x0f\x07", fixed, -1, anyMode, false, "sysretl|sysretq"},
	{0, "\x0f\x02", regRM, -1, regMode, false, "lar"},
	{0, "\x0f\x03", regRM, -1, regMode, false, "lsl"},
	{0xf3, "\x0f\x09", fixed, -1, anyMode, false, "wbnoinvd"},
	{0, "\x0f\x0d", rm, 2, memMode, false, "prefetchwt1"},
	{0, "\x0f\x1c", rm, 0, memMode, false, "cldemote"},
	{0xf3, "\x0f\x1e\xfa", fixed, -1, anyMode, false, "endbr64"},
	{0xf3, "\x0f\x1e\xfb", fixed, -1, anyMode, false, "endbr32"},
	{0xf3, "\x0f\x1e", rm, 1, regMode, false, "rdsspd|rdsspq"},
	{0, "\x0f\x35", fixed, -1, anyMode, false, "sysexitl|sysexitq"},
	{0, "\x0f\x37", fixed, -1, anyMode, false, "getsec"},
	{0x66, "\x0f\x38\x80", regRM, -1, memMode, true, "invept"},
	{0x66, "\x0f\x38\x81", regRM, -1, memMode, true, "invvpid"},
	{0x66, "\x0f\x38\xf5", rmReg, -1, memMode, false, "wrussd|wrussq"},
	{0, "\x0f\x38\xf6", rmReg, -1, memMode, false, "wrssd|wrssq"},
	{0x66, "\x0f\x38\xf6", regRM, -1, anyMode, false, "adcx"},
	{0xf3, "\x0f\x38\xf6", regRM, -1, anyMode, false, "adox"},
	{0x66, "\x0f\x38\xf8", regRM, -1, memMode, true, "movdir64b"},
	{0xf2, "\x0f\x38\xf8", regRM, -1, memMode, true, "enqcmd"},
	{0xf3, "\x0f\x38\xf8", regRM, -1, memMode, true, "enqcmds"},
	{0, "\x0f\x38\xf9", rmReg, -1, memMode, false, "movdiri"},
	{0, "\x0f\x78", rmReg, -1, anyMode, true, "vmread"},
	{0, "\x0f\x79", regRM, -1, anyMode, true, "vmwrite"},
	{0xf3, "\x0f\xae", rm, 4, memMode, false, "ptwritel|ptwriteq"},
	{0xf3, "\x0f\xae", rm, 4, regMode, false, "ptwrite"},
	{0xf3, "\x0f\xae", rm, 5, regMode, false, "incsspd|incsspq"},
	{0x66, "\x0f\xae", rm, 6, memMode, false, "clwb"},
	{0x66, "\x0f\xae", rm, 6, regMode, false, "tpause"},
	{0xf2, "\x0f\xae", rm, 6, regMode, false, "umwait"},
	{0xf3, "\x0f\xae", rm, 6, memMode, false, "clrssbsy"},
	{0xf3, "\x0f\xae", rm, 6, regMode, true, "umonitor"},
	{0x66, "\x0f\xae", rm, 7, memMode, false, "clflushopt"},
	{0, "\x0f\xc7", rm, 6, memMode, false, "vmptrld"},
	{0, "\x0f\xc7", rm, 6, regMode, false, "rdrand"},
	{0x66, "\x0f\xc7", rm, 6, memMode, false, "vmclear"},
	{0xf3, "\x0f\xc7", rm, 6, memMode, false, "vmxon"},
	{0xf3, "\x0f\xc7", rm, 6, regMode, true, "senduipi"},
	{0, "\x0f\xc7", rm, 7, memMode, false, "vmptrst"},
	{0, "\x0f\xc7", rm, 7, regMode, false, "rdseed"},
	{0xf3, "\x0f\xc7", rm, 7, regMode, true, "rdpid"},
	{0, "\xc4\xe2\x78\x49\xc0", fixed, -1, anyMode, false, "tilerelease"},
	{0, "\xc5\xf8\x77", fixed, -1, anyMode, false, "vzeroupper"},
	{0, "\xc5\xfc\x77", fixed, -1, anyMode, false, "vzeroall"},
	{0, "\xcb", fixed, -1, anyMode, false, "lret|lretq"},
}

// decode decodes the first instruction of code. The name is empty where the
// decoder's own mnemonic holds; without operands it is the instruction's whole
// text and in.Op is 0. It is not ok if there is no such instruction.
func decode(code []byte) (in x86asm.Inst, name string, ok bool) {
	p := parse(code)
	for i := range extras {
		if x := &extras[i]; x.matches(p) {
			in, name, ok = x.decode(code, p)
			normalize(&in, code)
			return in, name, ok
		}
	}
	in, err := x86asm.Decode(code, 64)
	if err != nil || in.Op == 0 { // Op 0 is a prefix before an unknown opcode
		return x86asm.Inst{}, "", false
	}
	normalize(&in, code)
	return in, "", true
}

// parts is an instruction cut into prefixes and the rest.
type parts struct {
	other  []byte // legacy prefixes that are not mandatory ones, such as a segment
	prefix byte   // the last mandatory prefix, where 0xf2 and 0xf3 go before 0x66
	rex    byte
	len    int    // of all prefixes
	opcode []byte // and all that follows
}

func parse(code []byte) parts {
	var p parts
	for ; p.len < len(code) && p.len < MaxLen-1; p.len++ {
		switch b := code[p.len]; b {
		case 0xf2, 0xf3:
			p.prefix = b
		case 0x66:
			if p.prefix == 0 {
				p.prefix = b
			}
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x67, 0xf0:
			p.other = append(p.other, b)
		default:
			if b&0xf0 == 0x40 {
				p.rex = b
				p.len++
			}
			p.opcode = code[p.len:]
			return p
		}
	}
	return p
}

func (x *extra) matches(p parts) bool {
	n := len(x.opcode)
	if x.prefix != p.prefix || len(p.opcode) < n || string(p.opcode[:n]) != x.opcode {
		return false
	}
	if x.shape == fixed {
		return true
	}
	if len(p.opcode) == n {
		return false
	}
	modrm := p.opcode[n]
	if x.reg >= 0 && modrm>>3&7 != byte(x.reg) {
		return false
	}
	return x.mode == anyMode || (x.mode == regMode) == (modrm>>6 == 3)
}

// decode decodes the instruction code, which x matches and whose parts are p.
func (x *extra) decode(code []byte, p parts) (x86asm.Inst, string, bool) {
	name, name64, _ := strings.Cut(x.name, "|")
	if p.rex&8 != 0 && name64 != "" {
		name = name64
	}
	if x.shape == fixed {
		return x86asm.Inst{Len: p.len + len(x.opcode)}, name, true
	}
	rex := p.rex
	if x.wide {
		rex |= 0x48
	}
	alias := append([]byte{}, p.other...)
	if rex != 0 {
		alias = append(alias, rex)
	}
	operands := p.opcode[len(x.opcode):]
	switch x.shape {
	case rm:
		alias = append(alias, 0xf7, operands[0]&^0x38|2<<3)
		operands = operands[1:]
	case rmReg:
		alias = append(alias, 0x89)
	case regRM:
		alias = append(alias, 0x8b)
	}
	head := len(alias)
	alias = append(alias, operands[:min(len(operands), MaxLen)]...)
	in, err := x86asm.Decode(alias, 64)
	if err != nil || in.Op == 0 {
		return x86asm.Inst{}, "", false
	}
	used := in.Len - head
	in.Len = len(code) - len(operands) + used
	return in, name, true
}

// absolute reports whether in holds an address of eight bytes, as MOV only can.
func absolute(in *x86asm.Inst) bool {
	return in.Op == x86asm.MOV && in.Opcode>>24&^3 == 0xa0
}

// normalize repairs the memory operands of in, whose bytes are code: x86asm
// extends the sign of some displacements only, and takes the %rip of the
// instructions that start with a VEX or EVEX prefix for no base at all.
func normalize(in *x86asm.Inst, code []byte) {
	for i, a := range in.Args {
		m, ok := a.(x86asm.Mem)
		if !ok || absolute(in) {
			continue
		}
		m.Disp = int64(int32(m.Disp))
		if m.Base == 0 && m.Index == 0 && modrm(code)&0xc7 == 5 {
			m.Base = x86asm.RIP
		}
		in.Args[i] = m
	}
}

// prefixVEX returns the length in bytes of the VEX or EVEX prefix that code
// starts with, 0 if it does not.
func prefixVEX(code []byte) int {
	if len(code) == 0 {
		return 0
	}
	switch code[0] {
	case 0xc5:
		return 2
	case 0xc4:
		return 3
	case 0x62:
		return 4
	}
	return 0
}
