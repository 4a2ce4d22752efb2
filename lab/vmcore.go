package lab

import (
	"context"
	"errors"
	"fmt"
	"os"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/filter"
	"crashlab/lab/blame"
	"crashlab/lab/wire"
)

// vmcoreStats says what became of the captured memory.
type vmcoreStats struct {
	dump.WriteStats
	Free     uint64 // pages left out as free
	Warnings []string
}

// writeVMCore turns the capture on a raw disk into a standard kdump-compressed
// file at path. Free pages are left out; a page is kept if it is unknown what it is
// used for, and the reason is among the warnings.
func writeVMCore(ctx context.Context, disk, path string) (st vmcoreStats, err error) {
	c, err := wire.OpenCapture(disk)
	if err != nil {
		return st, blame.New(blame.Kernel, "receive the crashed kernel's memory", err)
	}
	defer c.Close()

	img, err := dump.NewImage(c, c.Size())
	if err != nil {
		return st, blame.New(blame.Analyzer, "read the captured memory", err)
	}
	cfg := dump.ConfigOf(img)
	cfg.Compression = dump.Zstd
	if kinds, err := pageKinds(img); err != nil {
		st.Warnings = append(st.Warnings, fmt.Sprintf("free pages are kept: %v", err))
	} else {
		if n, err := kinds.Unread(); n > 0 {
			st.Warnings = append(st.Warnings, fmt.Sprintf("%d pages are kept, as it is unknown what they are used for: %v", n, err))
		}
		there := cfg.Keep
		cfg.Keep = func(pfn addr.PFN) bool {
			if filter.ExcludeFree.Excludes(kinds.Kind(pfn)) {
				st.Free++
				return false
			}
			return there(pfn)
		}
		cfg.DumpLevel = int(filter.ExcludeFree)
	}

	f, err := os.Create(path)
	if err != nil {
		return st, blame.New(blame.Infrastructure, "write the vmcore", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = blame.New(blame.Infrastructure, "write the vmcore", cerr)
		}
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if st.WriteStats, err = dump.Write(ctx, f, cfg, img); err != nil {
		return st, blame.New(blame.Infrastructure, "write the vmcore", err)
	}
	return st, nil
}

func pageKinds(img *dump.Image) (*filter.Map, error) {
	p, err := crashkit.New(img)
	if err != nil {
		return nil, err
	}
	return filter.Classify(p)
}
