// Package rpm reads RPM packages: what they say of themselves, whether they are
// whole, and their files. No rpm program is needed.
//
// The format is version 4 of rpm's, of its docs/manual/format_v4.md: a lead of 96
// bytes, a header of signatures, a header of tags, and a compressed cpio archive.
package rpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cavaliergopher/rpm"
)

// Package is an RPM package.
type Package struct {
	*rpm.Package // what its headers say

	r               io.ReaderAt
	size            int64 // of the file, in bytes
	header, header2 int64 // where the header of tags begins and ends, the latter where the payload begins
}

const leadSize = 96

// maxHeader bounds the size of a header, in bytes; it is that of the library.
const maxHeader = 32 << 20

// ErrNotRPM is returned for files that are no RPM packages.
var ErrNotRPM = errors.New("not an RPM package")

// Open reads the headers of the package that fills the size bytes of r.
// Nothing is verified: see Verify.
func Open(r io.ReaderAt, size int64) (*Package, error) {
	var lead [leadSize]byte
	if n, err := r.ReadAt(lead[:], 0); n < len(lead) {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, ErrNotRPM
	}
	if !bytes.HasPrefix(lead[:], []byte{0xed, 0xab, 0xee, 0xdb}) {
		return nil, ErrNotRPM
	}
	// The library trusts counts and offsets: they are checked first.
	signatures, err := headerSize(r, size, leadSize)
	if err != nil {
		return nil, fmt.Errorf("signatures: %w", err)
	}
	p := &Package{r: r, size: size, header: leadSize + (signatures+7)&^7}
	tags, err := headerSize(r, size, p.header)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	p.header2 = p.header + tags
	all := make([]byte, p.header2)
	if _, err := r.ReadAt(all, 0); err != nil {
		return nil, noEOF(err)
	}
	if p.Package, err = rpm.Read(bytes.NewReader(all)); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return p, nil
}

// headerSize returns the number of bytes of the header at off, without padding,
// after having checked that each of its entries lies within it.
func headerSize(r io.ReaderAt, size, off int64) (int64, error) {
	const intro, entrySize = 16, 16
	var head [intro]byte
	if off > size-intro {
		return 0, io.ErrUnexpectedEOF
	}
	if _, err := r.ReadAt(head[:], off); err != nil {
		return 0, noEOF(err)
	}
	if !bytes.HasPrefix(head[:], []byte{0x8e, 0xad, 0xe8, 1}) {
		return 0, errors.New("damaged: it does not begin as one")
	}
	n, dataSize := int64(binary.BigEndian.Uint32(head[8:])), int64(binary.BigEndian.Uint32(head[12:]))
	if n*entrySize > maxHeader || dataSize > maxHeader {
		return 0, fmt.Errorf("damaged: %d entries with %d bytes", n, dataSize)
	}
	total := intro + n*entrySize + dataSize
	if total > size-off {
		return 0, fmt.Errorf("cut short: %w", io.ErrUnexpectedEOF)
	}
	text := make([]byte, total-intro)
	if _, err := r.ReadAt(text, off+intro); err != nil {
		return 0, noEOF(err)
	}
	index, data := text[:n*entrySize], text[n*entrySize:]
	used := int64(0)
	for ; len(index) > 0; index = index[entrySize:] {
		tag, kind := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[4:])
		at, count := int64(binary.BigEndian.Uint32(index[8:])), int64(binary.BigEndian.Uint32(index[12:]))
		width, ok := valueSize(kind, count, at, data)
		// Entries do not overlap, so that together they are no larger than the data.
		if used += width; !ok || used > dataSize {
			return 0, fmt.Errorf("damaged: tag %d lies outside of it", tag)
		}
	}
	return total, nil
}

// valueSize returns how many bytes of data count values of a kind take at offset at.
func valueSize(kind uint32, count, at int64, data []byte) (size int64, ok bool) {
	left := int64(len(data)) - at
	if left <= 0 || count < 1 || count > left {
		return 0, false
	}
	switch rpm.TagType(kind) {
	case rpm.TagTypeNull:
		return 0, true
	case rpm.TagTypeChar, rpm.TagTypeInt8, rpm.TagTypeBinary:
		size = count
	case rpm.TagTypeInt16:
		size = 2 * count
	case rpm.TagTypeInt32:
		size = 4 * count
	case rpm.TagTypeInt64:
		size = 8 * count
	case rpm.TagTypeString, rpm.TagTypeStringArray, rpm.TagTypeI18NString:
		for range count {
			n := bytes.IndexByte(data[at+size:], 0)
			if n < 0 {
				return 0, false
			}
			size += int64(n) + 1
		}
	default:
		return 0, false
	}
	return size, size <= left
}

// ID returns what identifies the package's content, in hexadecimal: a hash of the header,
// which has a digest of the payload; of the whole package if it has none.
func (p *Package) ID(ctx context.Context) (string, error) {
	size := p.header2 - p.header
	if p.Header.GetTag(tagPayloadDigest).String() == "" {
		size = p.size - p.header
	}
	h := sha256.New()
	if _, err := io.Copy(h, &stoppable{ctx, io.NewSectionReader(p.r, p.header, size)}); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// IsSource reports whether the package holds sources, whatever its architecture says.
func (p *Package) IsSource() bool { return p.SourceRPM() == "" }

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
