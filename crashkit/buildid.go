package crashkit

import (
	"encoding/hex"
	"errors"
	"fmt"

	"crashlab/crashkit/dump"
)

// maxNotes bounds the size of the kernel's own ELF notes; they have some 500 bytes.
const maxNotes = 64 << 10

// BuildID returns the GNU build ID of the crashed kernel in hex.
//
// It reads the note that the linker put into the kernel. VMCOREINFO's BUILD-ID
// counts only where that cannot be read: it is garbage in a number of stable
// releases (6.1.113 to 6.1.118 among them).
func (p *Program) BuildID() (string, error) {
	id, err := p.buildIDNote()
	if err == nil {
		return id, nil
	}
	if id, ok := p.Info.Get("BUILD-ID"); ok {
		return id, nil
	}
	return "", fmt.Errorf("build ID of the kernel: %w", err)
}

func (p *Program) buildIDNote() (string, error) {
	start, ok1 := p.Syms.Lookup("__start_notes")
	stop, ok2 := p.Syms.Lookup("__stop_notes")
	if !ok1 || !ok2 {
		return "", errors.New("kallsyms has no __start_notes and __stop_notes")
	}
	if stop.Addr <= start.Addr || stop.Addr-start.Addr > maxNotes {
		return "", fmt.Errorf("notes from %v to %v: not a sensible size", start.Addr, stop.Addr)
	}
	b := make([]byte, stop.Addr-start.Addr)
	if err := p.Read(start.Addr, b); err != nil {
		return "", err
	}
	notes, err := dump.ParseNotes(b)
	for _, n := range notes {
		if n.Name == "GNU" && n.Type == 3 { // NT_GNU_BUILD_ID
			return hex.EncodeToString(n.Desc), nil
		}
	}
	return "", errors.Join(errors.New("none among the kernel's notes"), err)
}
