package dump

import "crashlab/crashkit/addr"

// Record calls touch with the page frame of every read of memory from now on,
// whether it succeeds or not. It must be called before the image is shared;
// touch is called by all that read, at the same time.
func (i *Image) Record(touch func(addr.PFN)) {
	i.mem = &recorder{memory: i.mem, touch: touch, pageSize: uint64(i.info.PageSize)}
}

// recorder is a memory that tells what is read of it.
type recorder struct {
	memory
	touch    func(addr.PFN)
	pageSize uint64
}

func (r *recorder) read(p addr.Phys, b []byte) error {
	r.touch(addr.PFN(uint64(p) / r.pageSize))
	return r.memory.read(p, b)
}

func (r *recorder) page(pfn addr.PFN) ([]byte, error) {
	r.touch(pfn)
	return r.memory.page(pfn)
}
