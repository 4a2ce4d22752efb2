package ikconfig

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/anchore/go-lzo"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"

	"crashlab/kconfig"
)

// isImage reports whether b is a bzImage: the boot protocol's magic is at 0x202
// (Documentation/arch/x86/boot.rst).
func isImage(b []byte) bool { return len(b) > 0x260 && string(b[0x202:0x206]) == "HdrS" }

// fromImage unpacks the kernel in a bzImage and looks into it.
func fromImage(b []byte) (*kconfig.Config, error) {
	kernel, err := Unpack(b)
	if err != nil {
		return nil, err
	}
	return marked(kernel)
}

// Unpack returns the vmlinux, without its symbols, in a bzImage.
func Unpack(b []byte) ([]byte, error) {
	if !isImage(b) {
		return nil, errors.New("is no bzImage")
	}
	if binary.LittleEndian.Uint16(b[0x206:]) < 0x208 {
		return nil, errors.New("is a bzImage of a boot protocol before 2.08, which does not say where the kernel is")
	}
	setup := (uint64(b[0x1f1]) + 1) * 512 // setup_sects, of 512 bytes
	if b[0x1f1] == 0 {
		setup = 5 * 512
	}
	offset, length := uint64(binary.LittleEndian.Uint32(b[0x248:])), uint64(binary.LittleEndian.Uint32(b[0x24c:]))
	if setup+offset+length > uint64(len(b)) {
		return nil, fmt.Errorf("is cut short: the kernel ends at %d of %d bytes", setup+offset+length, len(b))
	}
	kernel, err := unpack(b[setup+offset:][:length])
	if err != nil {
		return nil, fmt.Errorf("the kernel in the image: %w", err)
	}
	return kernel, nil
}

// unpack tells the format by its first bytes, as lib/decompress.c does. The
// build appends the unpacked size to all but gzip, which has it already.
func unpack(p []byte) ([]byte, error) {
	has := func(magic string) bool { return bytes.HasPrefix(p, []byte(magic)) }
	switch {
	case has("\x7fELF"):
		return p, nil
	case has("\x1f\x8b"):
		return gunzip(p, maxKernel)
	case has("BZh"):
		return readSized(bzip2.NewReader(bytes.NewReader(p)), p)
	case has("\x5d\x00"):
		r, err := lzma.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		return readSized(r, p)
	case has("\xfd7zXZ\x00"):
		return unxz(p)
	case has("\x89LZO"):
		return unlzop(p)
	case has("\x02\x21\x4c\x18"):
		return unlz4(p)
	case has("\x28\xb5\x2f\xfd"):
		d, err := zstd.NewReader(bytes.NewReader(p[:len(p)-4]), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxKernel))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return readSized(d, p)
	}
	return nil, errors.New("packed in a way that is not known here")
}

// size returns the unpacked size at the end of p, bounded.
func size(p []byte) int64 {
	if len(p) < 4 {
		return 0
	}
	return min(int64(binary.LittleEndian.Uint32(p[len(p)-4:])), maxKernel)
}

// readSized reads as many bytes as the end of p says; what follows them in r is
// not part of the data.
func readSized(r io.Reader, p []byte) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, size(p)))
	if err == nil && int64(len(b)) < size(p) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// unlz4 unpacks the legacy frame of lz4 (lz4_Frame_format.md): blocks, each
// behind its size, up to the end.
func unlz4(p []byte) ([]byte, error) {
	const blockSize = 8 << 20
	limit := size(p)
	var out []byte
	for p = p[4:]; int64(len(out)) < limit; {
		if len(p) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := uint64(binary.LittleEndian.Uint32(p))
		if p = p[4:]; n == 0 || n > uint64(len(p)) {
			return nil, io.ErrUnexpectedEOF
		}
		var err error
		if out, err = lz4Block(out, p[:n], blockSize); err != nil {
			return nil, err
		}
		p = p[n:]
	}
	return out, nil
}

var errLZ4 = errors.New("lz4: the block is damaged")

// lz4Block appends to out what the block in unpacks to, at most limit bytes.
func lz4Block(out, in []byte, limit int) ([]byte, error) {
	start := len(out)
	more := func(n int) (int, bool) {
		for n >= 15 {
			if len(in) == 0 {
				return 0, false
			}
			b := in[0]
			in = in[1:]
			if n += int(b); n > limit+15 {
				return 0, false
			}
			if b != 255 {
				break
			}
		}
		return n, true
	}
	for len(in) > 0 {
		token := in[0]
		in = in[1:]
		n, ok := more(int(token >> 4))
		if !ok || n > len(in) || len(out)-start+n > limit {
			return nil, errLZ4
		}
		out, in = append(out, in[:n]...), in[n:]
		if len(in) == 0 {
			return out, nil // the last sequence has literals only
		}
		if len(in) < 2 {
			return nil, errLZ4
		}
		back := int(binary.LittleEndian.Uint16(in))
		in = in[2:]
		n, ok = more(int(token & 15))
		n += 4
		if !ok || back == 0 || back > len(out)-start || len(out)-start+n > limit {
			return nil, errLZ4
		}
		for range n { // it may overlap with itself
			out = append(out, out[len(out)-back])
		}
	}
	return out, nil
}

// unlzop unpacks what lzop writes: a header, then blocks with sizes and checksums
// (lib/decompress_unlzo.c).
func unlzop(p []byte) (out []byte, err error) {
	defer func() {
		if v := recover(); v != nil { // of the decompressor, on damaged data
			out, err = nil, fmt.Errorf("lzo: %v", v)
		}
	}()
	limit := size(p)
	r := &cursor{b: p}
	r.skip(9) // magic
	version := r.u16()
	r.skip(2) // version of the library
	if version >= 0x0940 {
		r.skip(2) // version that is needed
	}
	r.skip(1) // method
	if version >= 0x0940 {
		r.skip(1) // level
	}
	flags := r.u32()
	const filter, adler, crc, adlerPacked, crcPacked = 0x800, 1, 0x100, 2, 0x200
	if flags&filter != 0 {
		r.skip(4)
	}
	r.skip(4 + 4) // mode, time
	if version >= 0x0940 {
		r.skip(4) // the upper half of time
	}
	r.skip(int(r.u8())) // name
	r.skip(4)           // checksum
	for r.err == nil && int64(len(out)) < limit {
		n := r.u32()
		if n == 0 {
			break
		}
		packed := r.u32()
		for _, f := range []uint32{adler, crc} {
			if flags&f != 0 {
				r.skip(4)
			}
		}
		if packed < n {
			for _, f := range []uint32{adlerPacked, crcPacked} {
				if flags&f != 0 {
					r.skip(4)
				}
			}
		}
		const maxBlock = 64 << 20
		if n > maxBlock || packed > n {
			return nil, fmt.Errorf("lzo: a block of %d bytes", n)
		}
		in := r.take(int(packed))
		if r.err != nil {
			break
		}
		if packed == n {
			out = append(out, in...)
			continue
		}
		block := make([]byte, n)
		m, err := lzo.Decompress(in, block)
		if err != nil {
			return nil, fmt.Errorf("lzo: %w", err)
		}
		if m != int(n) {
			return nil, fmt.Errorf("lzo: a block of %d bytes unpacks to %d", n, m)
		}
		out = append(out, block...)
	}
	return out, r.err
}

// cursor reads big-endian numbers; the first error stays.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) take(n int) []byte {
	if c.err == nil && n > len(c.b) {
		c.err = io.ErrUnexpectedEOF
	}
	if c.err != nil {
		return make([]byte, min(n, 8))
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) skip(n int)  { c.take(n) }
func (c *cursor) u8() byte    { return c.take(1)[0] }
func (c *cursor) u16() uint16 { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) u32() uint32 { return binary.BigEndian.Uint32(c.take(4)) }
