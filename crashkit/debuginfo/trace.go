package debuginfo

import (
	"errors"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/unwind"
)

// Locals returns for each frame of a stack the variables of the functions that it is in,
// innermost first. It is empty for a frame that no file is there for; the error says
// what is missing, once.
//
// What a function keeps in registers is followed from where they are known, from the
// registers that an exception saved and from those that a task got when it was switched
// out, by the rules in .debug_frame. The frames are the unwinder's.
func (s *Source) Locals(t unwind.Trace) ([][]Scope, error) {
	all := make([][]Scope, len(t.Frames))
	var errs []error
	said := make(map[string]bool)
	note := func(err error) {
		if err != nil && !said[err.Error()] {
			said[err.Error()] = true
			errs = append(errs, err)
		}
	}
	moments := s.moments(t, note)
	for i, m := range moments {
		if m != nil {
			var err error
			all[i], err = m.scopes()
			note(err)
		}
	}
	return all, errors.Join(errs...)
}

// moments returns the state of each frame; nil for one that no file is there for.
func (s *Source) moments(t unwind.Trace, note func(error)) []*moment {
	all := make([]*moment, len(t.Frames))
	var regs registerSet
	if t.Saved != nil {
		regs.setAll(t.Saved)
		for n := range regs.known {
			regs.known[n] = kept(n)
		}
	}
	for i, frame := range t.Frames {
		if frame.Regs != nil {
			regs = registerSet{}
			if !frame.Partial {
				regs.setAll(frame.Regs)
			}
		}
		regs.set(regRSP, uint64(frame.SP))
		regs.set(regRIP, uint64(frame.IP))
		at := Code(t.Frames, i)
		f, moved, err := s.file(at)
		if err != nil {
			note(err)
			regs = registerSet{}
			continue
		}
		m := &moment{f: f, pc: uint64(at) - moved, moved: moved, regs: regs, mem: s.p}
		if at != frame.IP {
			m.back = uint64(frame.IP) - moved
			if i > 0 && all[i-1] != nil {
				all[i-1].caller = m
			}
		}
		if i+1 < len(t.Frames) && t.Frames[i+1].Regs == nil {
			m.cfa, m.hasCFA = uint64(t.Frames[i+1].At)+8, true
		}
		all[i] = m
		regs = registerSet{}
		if r, err := f.rulesAt(m.pc); err == nil && m.hasCFA {
			// The compiler does not know of a switch of stacks, which is in assembler.
			if frame.Stack == t.Frames[i+1].Stack {
				err = m.regs.check(r, m.cfa)
			}
			if note(err); err == nil {
				regs = m.regs.caller(r, m.cfa, s.p)
			}
		}
	}
	return all
}

// Code returns the address that tells where frame i of a stack is in the source: a
// return address is behind the call.
func Code(frames []unwind.Frame, i int) addr.Virt {
	f := frames[i]
	if f.Regs == nil && !(i == 0 && f.How == unwind.Regs && f.At == 0) {
		return f.IP - 1
	}
	return f.IP
}
