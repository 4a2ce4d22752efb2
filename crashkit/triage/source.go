package triage

import (
	"errors"
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/facts"
)

// sources says which line of which file the panic's place and frames are.
func (t *triage) sources() {
	p := &t.f.Panic
	if t.debug == nil || p.IP == 0 {
		return
	}
	p.Source = t.source(p.IP)
	for _, frames := range [][]facts.Frame{p.Frames, p.CrashPath, p.Blamed.Frames} {
		for i := range frames {
			at := frames[i].IP
			if !frames[i].Exception && at != p.IP {
				at-- // a return address: the call is before it
			}
			frames[i].Source = t.source(at)
		}
	}
}

// source returns the line that the code at ip comes from, in the function that the
// symbol there names: of what is inlined there, the line of the call. It is "" without
// debug information.
func (t *triage) source(ip uint64) string {
	places, err := t.debug.Places(addr.Virt(ip))
	if err != nil && !errors.Is(err, debuginfo.ErrNone) {
		t.problem("source of %#x: %v", ip, err)
	}
	if len(places) == 0 || places[len(places)-1].File == "" {
		return ""
	}
	outermost := places[len(places)-1]
	return fmt.Sprintf("%s:%d", outermost.File, outermost.Line)
}
