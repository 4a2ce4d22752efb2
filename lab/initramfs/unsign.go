package initramfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// UnsignedKernel returns an EFI-bootable kernel image without its signature:
// the entry for certificates in the PE32+ optional header's data directory is
// cleared, as arch/x86/boot/header.S (v6.1) has it before signing, and the
// certificates at the end of the file are cut off. An image without a PE
// header, or without a signature, is returned as it is.
//
// kexec_file_load sums up all of a signed image to check the signature, 0.2 s
// of an emulated processor, and by default loads it whatever the result. Where
// lockdown is on, it insists.
func UnsignedKernel(image []byte) ([]byte, error) {
	const (
		peOffset     = 0x3c // of the PE header's offset in the DOS header
		optional     = 24   // the optional header in the PE header
		magic64      = 0x20b
		directories  = 112 // the data directory in the optional header, after its length
		certificates = 4   // index of the entry
	)
	le := binary.LittleEndian
	if len(image) < peOffset+4 || string(image[:2]) != "MZ" {
		return image, nil
	}
	pe := uint64(le.Uint32(image[peOffset:]))
	entry := pe + optional + directories + 8*certificates
	if uint64(len(image)) < entry+8 || string(image[pe:pe+4]) != "PE\x00\x00" ||
		le.Uint16(image[pe+optional:]) != magic64 || le.Uint32(image[pe+optional+directories-4:]) <= certificates {
		return image, nil
	}
	start, size := uint64(le.Uint32(image[entry:])), uint64(le.Uint32(image[entry+4:]))
	if start == 0 && size == 0 {
		return image, nil
	}
	if start < entry+8 || start+size != uint64(len(image)) {
		return nil, fmt.Errorf("kernel image of %d bytes has a signature of %d at %#x", len(image), size, start)
	}
	out := bytes.Clone(image[:start])
	clear(out[entry : entry+8])
	return out, nil
}
