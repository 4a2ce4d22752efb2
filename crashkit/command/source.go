package command

import (
	"errors"
	"fmt"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/unwind"
)

// places returns where the code at v comes from, innermost first.
func (e *Env) places(v addr.Virt) ([]debuginfo.Place, error) {
	if e.Debug == nil {
		return nil, debuginfo.ErrNone
	}
	places, err := e.Debug.Places(v)
	if places == nil {
		places = []debuginfo.Place{}
	}
	return places, err
}

// framePlaces returns the places of each frame, empty for one that no file is
// there for, and in the error once what is missing.
func (e *Env) framePlaces(frames []unwind.Frame) ([][]debuginfo.Place, error) {
	all := make([][]debuginfo.Place, len(frames))
	var errs []error
	said := make(map[string]bool)
	for i := range frames {
		var err error
		if all[i], err = e.places(debuginfo.Code(frames, i)); all[i] == nil {
			all[i] = []debuginfo.Place{}
		}
		if err != nil && !said[err.Error()] {
			said[err.Error()] = true
			errs = append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// place writes one place, in the style of crash's bt -l.
func placeText(p debuginfo.Place) string {
	s := "??"
	if p.File != "" {
		s = p.File
		if p.Line > 0 {
			s += fmt.Sprintf(": %d", p.Line)
		}
	}
	if p.Inlined {
		s += "  (inlined " + p.Function + ")"
	}
	return safe(s)
}

// shortPlace names a place in as few words as an instruction's line has room for.
func shortPlace(places []debuginfo.Place) string {
	var all []string
	for _, p := range places {
		if p.File != "" {
			all = append(all, fmt.Sprintf("%s:%d", p.File, p.Line))
		}
	}
	return safe(strings.Join(all, " < "))
}
