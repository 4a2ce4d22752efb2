package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// An archive of files is the bodies of the blockFiles blocks, joined. Each
// file is, little-endian: 4 bytes length of the name, 8 bytes length of the
// content, the name, the content. The meta of the end is the number of files,
// 8 bytes.
const fileHeader = 12

// TruthWriter writes an archive of files.
type TruthWriter struct {
	s *stream
	n uint64
}

// NewTruthWriter returns a writer that fills buf, a number of pages, and then
// the buffers that put returns.
func NewTruthWriter(buf []byte, put Put) (*TruthWriter, error) {
	s, err := newStream(buf, put)
	return &TruthWriter{s: s}, err
}

// File appends a file. Its name is a relative slash-separated path.
func (w *TruthWriter) File(name string, content []byte) error {
	var h [fileHeader]byte
	binary.LittleEndian.PutUint32(h[:], uint32(len(name)))
	binary.LittleEndian.PutUint64(h[4:], uint64(len(content)))
	w.n++
	for _, b := range [][]byte{h[:], []byte(name), content} {
		if err := w.s.write(blockFiles, b); err != nil {
			return err
		}
	}
	return nil
}

// Close writes the end. It does not wait for the disk.
func (w *TruthWriter) Close() error {
	if w.s.body > 0 {
		if err := w.s.flush(blockFiles, nil); err != nil {
			return err
		}
	}
	return w.s.flush(blockEnd, binary.LittleEndian.AppendUint64(nil, w.n))
}

// Files are the contents of an archive by name.
type Files map[string][]byte

// ReadTruth reads the archive on the raw disk image at path. A damaged or
// incomplete one is an error: ErrNoStream, ErrIncomplete or what differs.
func ReadTruth(path string) (Files, error) {
	disk, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("read truth: %w", err)
	}
	defer disk.close()
	files, err := readTruth(disk.b)
	if err != nil {
		return nil, fmt.Errorf("read truth from %s: %w", path, err)
	}
	return files, nil
}

func readTruth(b []byte) (Files, error) {
	blocks, end, err := readBlocks(b)
	if err != nil {
		return nil, err
	}
	var all []byte
	for i, k := range blocks {
		if k.kind != blockFiles {
			return nil, fmt.Errorf("block %d is of kind %d, not of an archive of files", i, k.kind)
		}
		all = append(all, k.body...)
	}
	files := Files{}
	for len(all) > 0 {
		if len(all) < fileHeader {
			return nil, errors.New("archive ends inside a file's header")
		}
		nameLen, size := uint64(binary.LittleEndian.Uint32(all)), binary.LittleEndian.Uint64(all[4:])
		all = all[fileHeader:]
		if nameLen > uint64(len(all)) || size > uint64(len(all))-nameLen {
			return nil, fmt.Errorf("archive ends inside file %d", len(files))
		}
		name := string(all[:nameLen])
		if !fs.ValidPath(name) {
			return nil, fmt.Errorf("file %d has the name %q", len(files), name)
		}
		if _, twice := files[name]; twice {
			return nil, fmt.Errorf("file %s appears twice", name)
		}
		files[name] = all[nameLen:][:size:size]
		all = all[nameLen+size:]
	}
	if len(end) != 8 || binary.LittleEndian.Uint64(end) != uint64(len(files)) {
		return nil, fmt.Errorf("archive has %d files, its end says % x", len(files), end)
	}
	return files, nil
}

// Extract writes the files below dir, which is created.
func (f Files) Extract(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("extract truth: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("extract truth: %w", err)
	}
	defer root.Close()
	for name, content := range f {
		if d := path.Dir(name); d != "." {
			if err := root.MkdirAll(d, 0o777); err != nil {
				return fmt.Errorf("extract truth to %s: %w", dir, err)
			}
		}
		if err := root.WriteFile(name, content, 0o666); err != nil {
			return fmt.Errorf("extract truth to %s: %w", dir, err)
		}
	}
	return nil
}
