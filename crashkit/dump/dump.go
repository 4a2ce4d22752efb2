// Package dump reads the physical memory of a crashed machine out of crash-dump
// files: ELF cores as /proc/vmcore and QEMU write them, kdump-compressed files
// of makedumpfile and QEMU, either of them flattened, and plain images of memory.
// It also writes kdump-compressed files.
//
// The package knows file formats and nothing of kernels: no virtual addresses,
// no symbols, no types. Every number in a file is taken as hostile. Damage is
// reported where it matters, page by page: a truncated dump opens and answers
// for the pages that are whole. Missing memory is an [addr.Fault], never zeroes.
package dump

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"

	"crashlab/crashkit/addr"
)

// PhysReader reads the crashed machine's physical memory.
type PhysReader interface {
	// ReadPhys reads all of b from p or returns an *addr.Fault.
	ReadPhys(p addr.Phys, b []byte) error
}

// ErrFormat is wrapped by the error of [Open] and [NewImage] for a file that is
// no crash dump, or not one of a kind this package reads.
var ErrFormat = errors.New("not a supported crash dump")

// ErrNoVMCoreInfo is returned by [Image.VMCoreInfo] for a dump without one.
var ErrNoVMCoreInfo = errors.New("the dump has no VMCOREINFO note")

// State says what a dump has of a page.
type State uint8

// The states of a page.
const (
	Absent    State = iota // the dump knows no such memory
	Present                // the page is stored
	Excluded               // memory existed, but the dump's maker left it out
	Truncated              // it should be stored, but is not: the file ends too early or a part is missing
)

func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case Present:
		return "present"
	case Excluded:
		return "excluded"
	case Truncated:
		return "truncated"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// maxPhys is an address no machine's memory reaches: 64-bit architectures have at
// most 52 bits of physical address, s390x aside. It keeps sums from wrapping.
const maxPhys = 1 << 56

// Image is an opened dump. Its methods may be called concurrently, except Close.
type Image struct {
	mem      memory
	info     Info
	notes    []Note
	infoText []byte // VMCOREINFO where the kdump header says it is, or nil
	segments []Segment
	close    func() error
	zeroed   atomic.Uint64

	finish     func() // completes info with what takes time to find out
	ranges     func() []addr.Range
	vmcoreinfo func() (*VMCoreInfo, error)
}

// memory is a format's view of physical memory.
type memory interface {
	// read reads all of b, which does not cross a page boundary, from p.
	read(p addr.Phys, b []byte) error
	// page returns one whole page. The slice stays valid until Close.
	page(pfn addr.PFN) ([]byte, error)
	// pageInto is page, but unpacks into buf, which has a page's size, where it
	// must unpack, and leaves the caches alone.
	pageInto(pfn addr.PFN, buf []byte) ([]byte, error)
	state(pfn addr.PFN) State
	// stored yields the runs of page frames that the file has something of, as
	// half-open pairs, ascending. Their number is bounded by the file's size.
	stored() iter.Seq2[uint64, uint64]
	// ranges returns the memory described, sorted and not touching.
	ranges() []addr.Range
}

// Segment is one PT_LOAD of an ELF dump: FileSize bytes from Offset of the file
// are the memory at Phys, which the crashed kernel had mapped at Virt.
type Segment struct {
	Phys     addr.Phys
	Virt     addr.Virt
	Offset   int64
	FileSize uint64 // bytes stored
	MemSize  uint64 // bytes described; those past FileSize are not stored
}

// Open opens the dump in the named file. A regular file is mapped, not read:
// opening costs a few milliseconds whatever its size. The file must not shrink
// while it is open, as the process would get SIGBUS.
func Open(path string) (*Image, error) { return OpenFiles([]string{path}, Options{}) }

// NewImage opens the dump in the first size bytes of r, which must be safe for
// concurrent use and stay valid until Close. Close does not close r.
func NewImage(r io.ReaderAt, size int64) (*Image, error) {
	return newImage(&readerSource{r: r, n: size}, Options{})
}

// newImage detects the format of src and opens it.
func newImage(src source, o Options) (*Image, error) {
	head, err := src.view(0, int(min(src.size(), headLen)))
	if err != nil {
		return nil, err
	}
	flattened := isFlattened(head)
	var flatNote string
	if flattened {
		flat, problem, err := openFlattened(src)
		if err != nil {
			return nil, err
		}
		src, flatNote = flat, problem
		if head, err = src.view(0, int(min(src.size(), headLen))); err != nil {
			return nil, fmt.Errorf("%w: the flattened stream does not hold the start of a dump", ErrFormat)
		}
	}
	var img *Image
	switch {
	case o.RAM != nil:
		img, err = openRaw(src, o.RAM, o)
	case isELF(head):
		img, err = openELF(src, o)
	case isKdump(head):
		img, err = openKdump(src, o)
	default:
		var ok bool
		if flattened {
			return nil, formatError(head)
		}
		if img, ok = detectRaw(src, o); !ok {
			return nil, formatError(head)
		}
	}
	if err != nil {
		return nil, err
	}
	img.info.FileSize = src.size()
	if flattened {
		img.info.Flattened = true
		if flatNote != "" {
			img.info.Truncated = true
			img.info.Problems = append(img.info.Problems, flatNote)
		}
	}
	img.ready()
	if o.VMCoreInfo != nil {
		img.SetVMCoreInfo(o.VMCoreInfo)
	}
	return img, nil
}

// ready sets up what is found out once, when it is asked for.
func (i *Image) ready() {
	if i.finish == nil {
		i.finish = func() {}
	}
	i.finish = sync.OnceFunc(i.finish)
	i.ranges = sync.OnceValue(i.mem.ranges)
	i.vmcoreinfo = sync.OnceValues(i.findVMCoreInfo)
}

// Close releases the file. Pages and descriptors handed out become invalid: no
// other method may run or be called after it.
func (i *Image) Close() error {
	if i.close == nil {
		return nil
	}
	err := i.close()
	i.close = nil
	return err
}

// PageSize returns the size of a page in bytes, a power of two.
func (i *Image) PageSize() int { return i.info.PageSize }

// Info returns what the file says about itself. The first call looks at the end
// of the file, which takes a few milliseconds in the dump of a machine with a
// terabyte of memory.
func (i *Image) Info() Info {
	i.finish()
	return i.info
}

// ZeroedReads returns how many reads so far, each within one page, got zeroes
// for what is excluded: none without [Options].ZeroExcluded.
func (i *Image) ZeroedReads() uint64 { return i.zeroed.Load() }

// Notes returns the ELF notes in the order stored. Descriptors are read-only.
func (i *Image) Notes() []Note { return i.notes }

// Segments returns the PT_LOADs of an ELF dump in file order, and nil for a
// kdump-compressed one, which does not keep them.
func (i *Image) Segments() []Segment { return i.segments }

// Ranges returns the physical memory the dump describes, stored or not: the
// crashed machine's RAM as far as its capture saw it. Sorted, not touching;
// read-only. Of a kdump-compressed file that describes more than a million
// ranges, which no machine has, it returns the first million.
func (i *Image) Ranges() []addr.Range { return i.ranges() }

// PageState says what the dump has of the page. Present promises a place inside
// the file, not that the stored bytes decode.
func (i *Image) PageState(pfn addr.PFN) State {
	if uint64(pfn) >= maxPhys/uint64(i.info.PageSize) {
		return Absent
	}
	return i.mem.state(pfn)
}

// Page returns one whole page or an *addr.Fault. The slice is read-only and
// valid until Close.
func (i *Image) Page(pfn addr.PFN) ([]byte, error) {
	if uint64(pfn) >= maxPhys/uint64(i.info.PageSize) {
		return nil, &addr.Fault{Reason: addr.NotInDump, Err: fmt.Errorf("page %#x", uint64(pfn))}
	}
	return i.mem.page(pfn)
}

// ReadPhys reads all of b from p or returns an *addr.Fault whose Phys is the
// first address that cannot be read. The content of b is then undefined.
func (i *Image) ReadPhys(p addr.Phys, b []byte) error {
	mask := uint64(i.info.PageSize - 1)
	for len(b) > 0 {
		if uint64(p) >= maxPhys {
			return fault(p, addr.NotInDump, nil)
		}
		n := min(uint64(len(b)), mask+1-uint64(p)&mask)
		if err := i.mem.read(p, b[:n]); err != nil {
			return err
		}
		b, p = b[n:], p+addr.Phys(n)
	}
	return nil
}

func fault(p addr.Phys, why addr.Reason, err error) *addr.Fault {
	return &addr.Fault{Phys: p, HasPhys: true, Reason: why, Err: err}
}
