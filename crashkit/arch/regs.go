package arch

import (
	"encoding/binary"
	"fmt"
)

// Regs are the general registers of an x86-64 processor as the kernel saves
// them (struct pt_regs in arch/x86/include/asm/ptrace.h).
type Regs struct {
	R15    uint64 `json:"r15"`
	R14    uint64 `json:"r14"`
	R13    uint64 `json:"r13"`
	R12    uint64 `json:"r12"`
	RBP    uint64 `json:"rbp"`
	RBX    uint64 `json:"rbx"`
	R11    uint64 `json:"r11"`
	R10    uint64 `json:"r10"`
	R9     uint64 `json:"r9"`
	R8     uint64 `json:"r8"`
	RAX    uint64 `json:"rax"`
	RCX    uint64 `json:"rcx"`
	RDX    uint64 `json:"rdx"`
	RSI    uint64 `json:"rsi"`
	RDI    uint64 `json:"rdi"`
	OrigAX uint64 `json:"orig_rax"`
	RIP    uint64 `json:"rip"`
	CS     uint64 `json:"cs"`
	EFlags uint64 `json:"eflags"`
	RSP    uint64 `json:"rsp"`
	SS     uint64 `json:"ss"`
}

// RegsSize is the size of struct pt_regs in bytes.
const RegsSize = 21 * 8

// DecodeRegs decodes the first RegsSize bytes of b: a struct pt_regs, or the
// pr_reg field of an NT_PRSTATUS note, which begins with the same registers.
func DecodeRegs(b []byte) (Regs, error) {
	var r Regs
	if len(b) < RegsSize {
		return r, fmt.Errorf("decode registers: %d bytes, need %d", len(b), RegsSize)
	}
	for i, p := range []*uint64{
		&r.R15, &r.R14, &r.R13, &r.R12, &r.RBP, &r.RBX, &r.R11, &r.R10, &r.R9, &r.R8, &r.RAX,
		&r.RCX, &r.RDX, &r.RSI, &r.RDI, &r.OrigAX, &r.RIP, &r.CS, &r.EFlags, &r.RSP, &r.SS,
	} {
		*p = binary.LittleEndian.Uint64(b[i*8:])
	}
	return r, nil
}

// User reports whether the registers were saved on entry from user mode.
func (r *Regs) User() bool { return r.CS&3 == 3 }
