package dump

import (
	"errors"
	"fmt"
	"os"
)

// Options say how to open a dump. The zero value is right for most.
type Options struct {
	// ZeroExcluded makes pages that the dump's maker left out read as zeroes,
	// as if they were stored. [Image.ZeroedReads] tells how often that happened.
	// Pages that are missing for another reason still fail.
	ZeroExcluded bool

	// RAM, if not nil, says that the file is a raw image of memory, and which.
	// A range without an Offset is placed by the size of the file: all ranges one
	// after the other, or each at the offset that is its address, or the same with
	// the memory from 4 GiB up following that below, as QEMU keeps it. Without RAM
	// the image of a QEMU guest's memory is recognized by what is in it.
	RAM []RAMRange

	// VMCoreInfo, if not nil, is used as the text of VMCOREINFO whatever the dump has.
	VMCoreInfo []byte

	// CacheDir is where files that are compressed as a whole (gzip, xz, zstd) are
	// unpacked to; "" means crashkit/unpacked in the user's cache. What is there
	// is used again, and removed when nobody opened it for two weeks.
	CacheDir string

	// Notify, if not nil, is told what takes long, in a line for people.
	Notify func(string)
}

// OpenFiles opens the dump in the named files: one, or in any order the parts
// of one that was split (makedumpfile --split). It opens a dump of which a part
// is missing or given twice, and [Info].Problems says so. The files are mapped;
// see [Open].
func OpenFiles(paths []string, o Options) (img *Image, err error) {
	if len(paths) == 0 {
		return nil, errors.New("open dump: no file given")
	}
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	if o.RAM != nil && len(paths) > 1 {
		return nil, errors.New("open dump: a raw image of memory is one file")
	}
	var parts []*Image
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		src, closeSrc, err := openUnpacked(f, o)
		if err != nil {
			return nil, fmt.Errorf("open dump %s: %w", path, err)
		}
		closers = append(closers, closeSrc)
		img, err := newImage(src, o)
		if err != nil {
			return nil, fmt.Errorf("open dump %s: %w", path, err)
		}
		parts = append(parts, img)
	}
	img = parts[0]
	if len(parts) > 1 {
		if img, err = joinParts(paths, parts, o); err != nil {
			return nil, fmt.Errorf("open split dump: %w", err)
		}
	}
	img.close = closeAll
	return img, nil
}

// openUnpacked takes f over and opens what is in it, or if it is compressed as
// a whole what it unpacks to.
func openUnpacked(f *os.File, o Options) (source, func() error, error) {
	head := make([]byte, headLen)
	n, err := f.ReadAt(head, 0)
	format, packed := packedFormat(head[:n])
	if err != nil && n == 0 || !packed {
		return openSource(f) // which has its own errors
	}
	defer f.Close()
	out, err := unpacked(f, format, o)
	if err != nil {
		return nil, nil, err
	}
	return openSource(out)
}
