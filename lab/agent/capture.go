//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"crashlab/crashkit/addr"
	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// window is how much of /proc/vmcore is mapped at once: the page tables for it
// take one 512th.
const window = 64 << 20

// capture saves the crashed kernel's memory.
func (a *agent) capture(job *wire.CaptureJob) error {
	if err := a.loadModules(); err != nil {
		return err
	}
	var mem memory
	a.line.phase(wire.PhaseDisk)
	d, err := a.openDisk(job.Disk)
	if err != nil {
		return err
	}
	a.line.phase(wire.PhaseCopy)
	core, err := os.Open("/proc/vmcore")
	if err != nil {
		return err
	}
	defer core.Close()
	head, err := readHead(core)
	if err != nil {
		return err
	}
	w, err := wire.NewCaptureWriter(head, d.buf, d.put)
	if err != nil {
		return err
	}
	var done, total uint64
	for _, s := range w.Spans() {
		total += s.Pages * wire.PageSize
	}
	for _, s := range w.Spans() {
		for s.Pages > 0 {
			n := min(s.Pages, window/wire.PageSize)
			if err := copyPages(w, core, s.PFN, s.Off, int(n)*wire.PageSize); err != nil {
				return err
			}
			s.PFN, s.Off, s.Pages = s.PFN+addr.PFN(n), s.Off+n*wire.PageSize, s.Pages-n
			done += n * wire.PageSize
			if err := mem.sample(); err != nil {
				return err
			}
			a.line.send(wire.Event{Kind: wire.EventProgress, Bytes: done, Total: total, Data: w.Totals().Data * wire.PageSize})
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := d.close(); err != nil {
		return err
	}
	a.line.send(wire.Event{
		Kind: wire.EventDone, Bytes: done, Total: total, Data: w.Totals().Data * wire.PageSize,
		MemTotal: mem.total, MemPeak: mem.peak,
	})
	return nil
}

// readHead reads the start of /proc/vmcore, up to the memory.
func readHead(core io.ReaderAt) ([]byte, error) {
	var head []byte
	for {
		need, err := wire.CoreHeadLen(head)
		if err != nil || need <= len(head) {
			return head, err
		}
		head = make([]byte, need)
		if _, err := core.ReadAt(head, 0); err != nil {
			return nil, fmt.Errorf("read the first %d bytes of /proc/vmcore: %w", need, err)
		}
	}
}

// copyPages sends size bytes of memory at offset off of core. It maps them:
// reading goes through a temporary mapping for each page in the kernel and is
// ten times as slow.
func copyPages(w *wire.CaptureWriter, core *os.File, pfn addr.PFN, off uint64, size int) error {
	mem, err := unix.Mmap(int(core.Fd()), int64(off), size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map %d bytes at %#x of /proc/vmcore: %w", size, off, err)
	}
	if err := w.Write(pfn, mem); err != nil {
		return err
	}
	return unix.Munmap(mem)
}

// memory watches how much of this kernel's memory is in use.
type memory struct{ total, peak uint64 } // bytes

func (m *memory) sample() error {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	total, err := meminfo(string(text), "MemTotal")
	if err != nil {
		return err
	}
	available, err := meminfo(string(text), "MemAvailable")
	if err != nil {
		return err
	}
	m.total, m.peak = total, max(m.peak, total-min(total, available))
	return nil
}

// meminfo returns the bytes of one line of /proc/meminfo.
func meminfo(text, key string) (uint64, error) {
	for line := range strings.Lines(text) {
		value, ok := strings.CutPrefix(line, key+":")
		if !ok {
			continue
		}
		kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 54)
		if err != nil {
			return 0, fmt.Errorf("parse %s of /proc/meminfo: %w", key, err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("/proc/meminfo has no %s", key)
}
