package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Tar calls add for each file of a tar archive, in its order. The rest of r, which
// may have checksums to verify, is read to its end. When add returns ErrStop, so
// does Tar, and nothing more is read.
func Tar(r io.Reader, add func(Entry, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		e := Entry{Path: h.Name, Mode: h.FileInfo().Mode(), ModTime: h.ModTime, Size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir:
		case tar.TypeXGlobalHeader: // of git archive: the commit
			continue
		case tar.TypeSymlink:
			e.Link, e.Size = h.Linkname, 0
		case tar.TypeLink:
			e.Link, e.Size, e.Mode = h.Linkname, 0, e.Mode.Perm()
		default:
			if e.Mode&fs.ModeType == 0 {
				return fmt.Errorf("%s has the unexpected type %q", h.Name, h.Typeflag)
			}
		}
		if err := add(e, tr); err != nil {
			return err
		}
	}
}

// ErrStop is returned by functions that want no more entries.
var ErrStop = errors.New("stop")
