package dump

import (
	"encoding/binary"
	"errors"
)

// Note is an ELF note. Desc is read-only.
type Note struct {
	Name string // without the terminating NUL, such as "CORE", "VMCOREINFO", "QEMU"
	Type uint32
	Desc []byte
}

// ntPRStatus is NT_PRSTATUS of include/uapi/linux/elf.h.
const ntPRStatus = 1

// maxNotes bounds the notes of a dump in bytes. Those of 8192 CPUs are 3 MB.
const maxNotes = 64 << 20

var errNote = errors.New("a note reaches past the end of the notes")

// ParseNotes splits the content of a PT_NOTE of a little-endian dump. Names and
// descriptors are padded to 4 bytes, as in the kernel's cores. Bytes that are
// all zero end the list. On a malformed note it returns those before it and an
// error. Descriptors are slices of b.
func ParseNotes(b []byte) ([]Note, error) {
	var notes []Note
	for len(b) >= 12 {
		nameLen := uint64(binary.LittleEndian.Uint32(b))
		descLen := uint64(binary.LittleEndian.Uint32(b[4:]))
		typ := binary.LittleEndian.Uint32(b[8:])
		if nameLen == 0 && descLen == 0 && typ == 0 {
			return notes, nil
		}
		desc := 12 + (nameLen+3)&^3
		end := desc + descLen
		if end > uint64(len(b)) {
			return notes, errNote
		}
		notes = append(notes, Note{
			Name: cstring(b[12 : 12+nameLen]),
			Type: typ,
			Desc: b[desc:end:end],
		})
		b = b[min((end+3)&^3, uint64(len(b))):]
	}
	return notes, nil
}

// noteDescOffset returns where in its encoding a note's descriptor begins.
func noteDescOffset(n Note) int { return 12 + (len(n.Name)+1+3)&^3 }

// AppendNote appends the encoding of a note, as ParseNotes reads it, to b.
func AppendNote(b []byte, n Note) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(n.Name)+1))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(n.Desc)))
	b = binary.LittleEndian.AppendUint32(b, n.Type)
	b = append(append(b, n.Name...), 0)
	b = append(b, make([]byte, -(len(n.Name)+1)&3)...)
	b = append(b, n.Desc...)
	return append(b, make([]byte, -len(n.Desc)&3)...)
}

// cstring returns the bytes up to the first NUL.
func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// PRStatus is an NT_PRSTATUS note: the registers of one CPU when it stopped.
type PRStatus struct {
	PID int // of the task that ran; 0 for an idle task. QEMU stores the CPU number plus one instead.

	// Regs has the registers in the order of x86-64's struct user_regs_struct:
	// r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs
	// eflags rsp ss fs_base gs_base ds es fs gs. All zero for other machines.
	Regs [27]uint64

	Raw []byte // the whole struct elf_prstatus, read-only
}

// Offsets in struct elf_prstatus of a 64-bit machine (include/linux/elfcore.h,
// v6.1), in bytes.
const (
	prPID  = 32
	prRegs = 112
)

// PRStatus returns the NT_PRSTATUS notes in the order stored. That order is
// not the order of CPUs: one that was offline or did not stop has no note.
func (i *Image) PRStatus() []PRStatus {
	var all []PRStatus
	for _, n := range i.notes {
		if n.Name != "CORE" || n.Type != ntPRStatus || len(n.Desc) < prRegs {
			continue
		}
		s := PRStatus{
			PID: int(int32(binary.LittleEndian.Uint32(n.Desc[prPID:]))),
			Raw: n.Desc,
		}
		if regs := n.Desc[prRegs:]; i.info.Machine == "x86_64" && len(regs) >= 8*len(s.Regs) {
			for r := range s.Regs {
				s.Regs[r] = binary.LittleEndian.Uint64(regs[8*r:])
			}
		}
		all = append(all, s)
	}
	return all
}

// isVMCoreInfo reports whether n has the kernel's VMCOREINFO text.
func isVMCoreInfo(n Note) bool { return n.Name == "VMCOREINFO" }

func (i *Image) findVMCoreInfo() (*VMCoreInfo, error) {
	if i.infoText != nil {
		return ParseVMCoreInfo(i.infoText), nil
	}
	for _, n := range i.notes {
		if isVMCoreInfo(n) && len(n.Desc) <= maxVMCoreInfo {
			return ParseVMCoreInfo(n.Desc), nil
		}
	}
	return nil, ErrNoVMCoreInfo
}

// VMCoreInfo returns the crashed kernel's own description of itself, or
// ErrNoVMCoreInfo.
func (i *Image) VMCoreInfo() (*VMCoreInfo, error) { return i.vmcoreinfo() }
