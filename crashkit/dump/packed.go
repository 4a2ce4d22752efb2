package dump

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crashlab/internal/unpack"
)

// A dump that is compressed as a whole can only be read from its beginning on.
// It is unpacked to a file in the user's cache once, under a name made of a hash
// of the compressed file, and opened from there the next time.

const (
	// keepFree is what unpacking leaves free on the disk, in bytes.
	keepFree = 256 << 20
	// keepUnused is how long an unpacked dump stays that nobody opens.
	keepUnused = 14 * 24 * time.Hour
	// keepPart is how long unpacking may take: what is older was left behind.
	keepPart   = 24 * time.Hour
	partPrefix = "part-"
	// checkEvery is after how many bytes the free space is looked at again.
	checkEvery = 256 << 20
	// holeSize is the least run of zeroes that becomes a hole, in bytes.
	holeSize = 64 << 10
)

// packedFormat says how a file is compressed as a whole; ok is false if it is
// not, or not in a way that we unpack.
func packedFormat(head []byte) (format unpack.Format, ok bool) {
	switch f := unpack.Sniff(head); f {
	case unpack.Gzip, unpack.XZ, unpack.Zstd:
		return f, true
	}
	return unpack.None, false
}

// IsPart reports whether the named file begins as the parts of a split dump do,
// compressed as a whole or not: it is a kdump-compressed file.
func IsPart(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, headLen)
	n, _ := f.ReadAt(head, 0) // a shorter file is none
	if _, packed := packedFormat(head[:n]); packed {
		st, err := f.Stat()
		if err != nil {
			return false
		}
		r, err := unpack.Open(context.Background(), f, st.Size())
		if err != nil {
			return false
		}
		defer r.Close()
		n, _ = fill(r, head)
	}
	return isKdump(head[:n]) || isFlattened(head[:n])
}

// unpacked returns the unpacked content of a compressed file, opened.
func unpacked(f *os.File, format unpack.Format, o Options) (*os.File, error) {
	dir := o.CacheDir
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, unpackError(f, format, err)
		}
		dir = filepath.Join(user, "crashkit", "unpacked")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unpackError(f, format, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	key, err := contentKey(dir, f)
	if err != nil {
		return nil, fmt.Errorf("read the compressed file: %w", err)
	}
	path := filepath.Join(dir, key)
	if out, err := os.Open(path); err == nil {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // it only keeps the file longer
		return out, nil
	}
	prune(dir)
	if o.Notify != nil {
		o.Notify(fmt.Sprintf("unpacking %s (%s) to %s, once", f.Name(), format, dir))
	}
	if err := unpackTo(path, f, st.Size(), keepFree); err != nil {
		return nil, unpackError(f, format, err)
	}
	return os.Open(path)
}

// unpackError says what to do by hand.
func unpackError(f *os.File, format unpack.Format, err error) error {
	tool := map[unpack.Format]string{unpack.Gzip: "gzip -dk", unpack.XZ: "xz -dk", unpack.Zstd: "zstd -d"}[format]
	return fmt.Errorf("the file is compressed with %s as a whole and cannot be unpacked to the cache (%w); unpack it first: %s %s",
		format, err, tool, f.Name())
}

// contentKey returns a hash of a file's content. The hash is remembered for the
// file as it is now: device, inode, size and the times of the last change.
func contentKey(dir string, f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	id := fmt.Sprintf("%d %d %d %d.%d %d.%d", st.Dev, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
	sum := sha256.Sum256([]byte(id))
	memo := filepath.Join(dir, "of-"+hex.EncodeToString(sum[:16]))
	if b, err := os.ReadFile(memo); err == nil && len(b) == 2*sha256.Size && !bytes.ContainsFunc(b, notHex) {
		return string(b), nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, st.Size)); err != nil {
		return "", err
	}
	key := hex.EncodeToString(h.Sum(nil))
	_ = os.WriteFile(memo, []byte(key), 0o600) // without it the next opening takes longer
	return key, nil
}

func notHex(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }

// prune removes what nobody has opened for long, and what was left half done.
// Files that are open stay readable.
func prune(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		keep := keepUnused
		if strings.HasPrefix(e.Name(), partPrefix) {
			keep = keepPart
		}
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && time.Since(st.ModTime()) > keep {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// unpackTo writes what the size bytes of f unpack to into a file at path, which
// is there whole or not at all.
func unpackTo(path string, f *os.File, size int64, keep uint64) (err error) {
	r, err := unpack.Open(context.Background(), f, size)
	if err != nil {
		return err
	}
	defer r.Close()
	out, err := os.CreateTemp(filepath.Dir(path), partPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			out.Close()
			os.Remove(out.Name())
		}
	}()
	if err := copySparse(out, r, keep); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}

// copySparse copies r, with holes where it has zeroes. All of it, holes included,
// must fit the free space of the disk, of which keep bytes stay free: that bounds
// what a small file can unpack to.
func copySparse(out *os.File, r io.Reader, keep uint64) error {
	free, err := freeSpace(out)
	if err != nil {
		return err
	}
	buf, zero := make([]byte, 1<<20), make([]byte, holeSize)
	var size, checked uint64
	for {
		n, err := fill(r, buf)
		if size+uint64(n) >= checked+checkEvery {
			if now, err := freeSpace(out); err == nil && now < keep {
				free = 0 // somebody else writes too
			}
			checked = size
		}
		if free < keep || size+uint64(n) > free-keep {
			return fmt.Errorf("no room for more than %d MiB on the disk of %s, of which %d MiB stay free",
				size>>20, filepath.Dir(out.Name()), keep>>20)
		}
		for b := buf[:n]; len(b) > 0; {
			part := b[:min(len(b), holeSize)]
			if !bytes.Equal(part, zero[:len(part)]) {
				if _, err := out.WriteAt(part, int64(size)); err != nil {
					return err
				}
			}
			size += uint64(len(part))
			b = b[len(part):]
		}
		if errors.Is(err, io.EOF) {
			return out.Truncate(int64(size))
		}
		if err != nil {
			return err
		}
	}
}

// fill reads until buf is full or r has an error, io.EOF included.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// freeSpace returns the bytes that an ordinary user can still write to f's disk.
func freeSpace(f *os.File) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
