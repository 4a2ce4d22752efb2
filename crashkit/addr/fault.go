package addr

import (
	"errors"
	"fmt"
)

// Reason says why memory could not be read. The reasons are kept apart because
// they mean different things to a reader: a bad pointer in the crashed kernel,
// a page the capture left out on purpose, or a damaged file.
type Reason uint8

// The reasons of a Fault.
const (
	NotCanonical Reason = iota + 1 // the virtual address has wrong upper bits: a bad pointer
	NotMapped                      // the crashed kernel's page tables do not map it
	NotInDump                      // no such physical memory in the dump
	Excluded                       // the page was left out by the filter that made the dump
	Truncated                      // the page's place lies beyond the end of the file
	Corrupt                        // the page's stored data does not decode
	NotWritten                     // the page has a place in the file, but its writer never got there
	MissingPart                    // the page is in a part of a split dump that is not at hand
)

var reasonText = [...]string{
	NotCanonical: "not a canonical address",
	NotMapped:    "not mapped",
	NotInDump:    "not in the dump",
	Excluded:     "page excluded by the dump filter",
	Truncated:    "dump file is truncated",
	Corrupt:      "stored page is corrupt",
	NotWritten:   "page was never written: the dump is incomplete",
	MissingPart:  "page is in a missing part of the split dump",
}

func (r Reason) String() string {
	if int(r) < len(reasonText) && reasonText[r] != "" {
		return reasonText[r]
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Fault is the error of every failed read of the crashed machine's memory.
type Fault struct {
	What    string // what was to be read, such as "init_task.comm"; may be empty
	Virt    Virt   // the virtual address, if HasVirt
	Phys    Phys   // the physical address, if HasPhys
	HasVirt bool
	HasPhys bool
	Reason  Reason
	Err     error // detail, may be nil
}

func (f *Fault) Error() string {
	s := "read"
	if f.What != "" {
		s += " " + f.What
	}
	if f.HasVirt {
		s += fmt.Sprintf(" at %v", f.Virt)
	}
	if f.HasPhys {
		s += fmt.Sprintf(" (physical %v)", f.Phys)
	}
	s += ": " + f.Reason.String()
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

// Unwrap returns the detail.
func (f *Fault) Unwrap() error { return f.Err }

// ReasonOf returns the reason of the first Fault in err's chain, or 0.
func ReasonOf(err error) Reason {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f.Reason
	}
	return 0
}
