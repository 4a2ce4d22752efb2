package dump

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"crashlab/crashkit/addr"
)

// FoundInfo is a VMCOREINFO text that was found in memory, and its place.
type FoundInfo struct {
	Phys addr.Phys
	Text []byte
}

// maxFound bounds how many different texts a scan keeps. A crashed machine has
// two: its own and that of its capture kernel.
const maxFound = 16

// ScanVMCoreInfo searches the memory that is stored for VMCOREINFO texts, for
// dumps that have no such note. The kernel keeps its text in a page of its own,
// and a second time as the note that /proc/vmcore has (kernel/vmcore_info.c,
// v6.9; kernel/crash_core.c before). It returns the different ones, by address;
// of those that differ only in the time of the crash, the one that has it.
//
// It reads all pages, on all processors.
func (i *Image) ScanVMCoreInfo() []FoundInfo {
	var mu sync.Mutex
	var found []FoundInfo
	_ = i.ReadAll(func(pfn addr.PFN, page []byte, _ error) error { // without an error of ours there is none
		at := infoInPage(page)
		if at < 0 {
			return nil
		}
		text := page[at:]
		if end := bytes.IndexByte(text, 0); end >= 0 {
			text = text[:end]
		}
		mu.Lock()
		defer mu.Unlock()
		if len(found) < 4*maxFound {
			p := addr.Phys(uint64(pfn)*uint64(i.info.PageSize) + uint64(at))
			found = append(found, FoundInfo{p, bytes.Clone(text)})
		}
		return nil
	})
	slices.SortFunc(found, func(a, b FoundInfo) int {
		if a.Phys < b.Phys {
			return -1
		}
		return 1
	})
	var out []FoundInfo
	for _, f := range found {
		base, dated := cutCrashTime(f.Text)
		at := slices.IndexFunc(out, func(o FoundInfo) bool {
			b, _ := cutCrashTime(o.Text)
			return bytes.Equal(b, base)
		})
		switch {
		case at < 0 && len(out) < maxFound:
			out = append(out, f)
		case at >= 0 && dated:
			if _, has := cutCrashTime(out[at].Text); !has {
				out[at] = f
			}
		}
	}
	return out
}

// infoInPage returns where in a page a VMCOREINFO text begins: with the page, or
// behind the head of a note; -1 if there is none.
func infoInPage(page []byte) int {
	const noteHead = 24 // sizes, type, and "VMCOREINFO" with its padding
	start := []byte("OSRELEASE=")
	switch {
	case bytes.HasPrefix(page, start):
		return 0
	case len(page) > noteHead && binary.LittleEndian.Uint32(page) == 11 && bytes.HasPrefix(page[12:], []byte("VMCOREINFO\x00")) &&
		bytes.HasPrefix(page[noteHead:], start):
		return noteHead
	}
	return -1
}

// cutCrashTime returns the text up to what the kernel appends when it crashes.
func cutCrashTime(text []byte) (base []byte, dated bool) {
	base, _, dated = bytes.Cut(text, []byte("CRASHTIME="))
	return base, dated
}

// SetVMCoreInfo makes text the image's VMCOREINFO, instead of what it has. It
// must be called before the image is shared, and copies that are written of it
// have the text too.
func (i *Image) SetVMCoreInfo(text []byte) {
	i.infoText = bytes.Clone(text)
	i.notes = slices.DeleteFunc(slices.Clone(i.notes), isVMCoreInfo)
	i.ready()
}
