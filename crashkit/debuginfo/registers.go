package debuginfo

import (
	"encoding/binary"
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/arch"
	"crashlab/crashkit/ctype"
)

// The numbers of registers (System V ABI for AMD64, figure 3.36).
const (
	regRBX = 3
	regRBP = 6
	regRSP = 7
	regR12 = 12
	regRIP = 16
)

// registerNames are the registers by their numbers.
var registerNames = [registers]string{
	"RAX", "RDX", "RCX", "RBX", "RSI", "RDI", "RBP", "RSP", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15", "RIP",
}

func registerName(n uint64) string {
	if n < registers {
		return registerNames[n]
	}
	return fmt.Sprintf("register %d", n)
}

// registerSet is what is known of the registers in one frame.
type registerSet struct {
	value [registers]uint64
	known [registers]bool
}

func (s *registerSet) set(n int, v uint64) { s.value[n], s.known[n] = v, true }

// setAll sets the registers that an exception saved.
func (s *registerSet) setAll(r *arch.Regs) {
	for n, v := range [registers]uint64{
		r.RAX, r.RDX, r.RCX, r.RBX, r.RSI, r.RDI, r.RBP, r.RSP, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.RIP,
	} {
		s.set(n, v)
	}
}

// kept reports whether functions give a register back as they got it.
func kept(n int) bool { return n == regRBX || n == regRBP || n >= regR12 && n < regRIP }

// errRules is the reason that rules and the unwinder do not agree on a frame.
var errRules = errors.New("the unwind tables and the debug information do not agree")

// check holds the rules' place of the frame against that which the unwinder found.
func (s *registerSet) check(r *rules, cfa uint64) error {
	if r.byExpr || r.cfaReg >= registers || !s.known[r.cfaReg] {
		return nil // they cannot be checked
	}
	if at := s.value[r.cfaReg] + uint64(r.cfaOff); at != cfa {
		return fmt.Errorf("%w: the frame is at %#x or at %#x", errRules, cfa, at)
	}
	return nil
}

// caller returns what is known of the registers in the function that called this one,
// which has its frame at cfa.
func (s *registerSet) caller(r *rules, cfa uint64, mem ctype.Memory) registerSet {
	var out registerSet
	out.set(regRSP, cfa)
	for n := range registers {
		switch rule := r.regs[n]; rule.kind {
		case ruleUnset, ruleSame:
			if s.known[n] && (kept(n) || rule.kind == ruleSame) {
				out.set(n, s.value[n])
			}
		case ruleSaved:
			var b [8]byte
			if mem.Read(addr.Virt(cfa+uint64(rule.off)), b[:]) == nil {
				out.set(n, binary.LittleEndian.Uint64(b[:]))
			}
		case ruleIs:
			out.set(n, cfa+uint64(rule.off))
		}
	}
	return out
}
