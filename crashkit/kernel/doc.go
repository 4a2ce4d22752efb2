// Package kernel knows what the kernel's structures mean: its tasks, its log,
// its modules, its processors at the moment of the crash. Files are named after
// the kernel headers whose structures they read. Functions return structs of
// facts, never text; package command lays them out.
//
// This is the only package that names members of C structures. Each of them
// stands in the table of layout.go. What a kernel has is found by asking for
// members, symbols and VMCOREINFO keys, never by comparing versions.
//
// A dump may be damaged or filtered, so answers degrade one by one. A row that
// could be read in part is returned with what was wrong in its Problems; a walk
// that had to stop early returns the rows before the damage and an error.
//
// Functions are safe for concurrent use, as a Program is.
package kernel

import (
	"encoding/json"
	"errors"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// Problems are the reasons why some fields of a row have their zero value. In
// JSON they are their texts.
type Problems []error

// MarshalJSON implements json.Marshaler.
func (p Problems) MarshalJSON() ([]byte, error) {
	texts := make([]string, len(p))
	for i, err := range p {
		texts[i] = err.Error()
	}
	return json.Marshal(texts)
}

// Err returns the problems as one error, nil if there are none.
func (p Problems) Err() error { return errors.Join(p...) }

// The methods below read a leaf and note the error, so that the reading of a
// row goes on.

func (p *Problems) note(err error) {
	if err != nil {
		*p = append(*p, err)
	}
}

func (p *Problems) uint(o ctype.Object) uint64 {
	v, err := o.Uint()
	p.note(err)
	return v
}

func (p *Problems) int(o ctype.Object) int { return int(int64(p.uint(o))) }

func (p *Problems) ptr(o ctype.Object) addr.Virt { return addr.Virt(p.uint(o)) }

func (p *Problems) str(o ctype.Object) string {
	s, err := o.Str()
	p.note(err)
	return s
}
