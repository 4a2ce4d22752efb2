package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The manifest is text. Its first line names the format, then come the kind
// and inputs of the key, for people; then one line per file or symbolic link,
//
//	f SIZE MTIME_NS SHA256 PATH
//	l SIZE 0        SHA256 PATH    (of the link's target)
//
// and at last the SHA-256 of all that is above.
const manifestHead = "crashlab store 1\n"

// errNoEntry tells an entry that was never made from one that is damaged.
var errNoEntry = errors.New("no such entry")

type record struct {
	link  bool
	size  int64
	mtime int64 // Unix time in nanoseconds; 0 for links
	sum   string
	path  string // relative to files/, with slashes
}

// writeManifest describes the files below dir/files in dir/manifest.
func writeManifest(ctx context.Context, dir string, k Key) error {
	var b bytes.Buffer
	b.WriteString(manifestHead)
	fmt.Fprintf(&b, "kind %s\n", k.Kind)
	for _, in := range k.Inputs {
		fmt.Fprintf(&b, "input %q\n", in)
	}
	root := filepath.Join(dir, "files")
	err := filepath.WalkDir(root, func(p string, de fs.DirEntry, err error) error {
		if err != nil || de.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if strings.Contains(rel, "\n") {
			return fmt.Errorf("file name %q has a line break", rel)
		}
		r, err := describe(p)
		if err != nil {
			return err
		}
		kind := 'f'
		if r.link {
			kind = 'l'
		}
		fmt.Fprintf(&b, "%c %d %d %s %s\n", kind, r.size, r.mtime, r.sum, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "sum %x\n", sum)
	return os.WriteFile(filepath.Join(dir, "manifest"), b.Bytes(), 0o644)
}

// describe reads the file or link at path whole.
func describe(path string) (record, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return record{}, err
	}
	h := sha256.New()
	switch fi.Mode().Type() {
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return record{}, err
		}
		h.Write([]byte(target))
		return record{link: true, size: int64(len(target)), sum: hex.EncodeToString(h.Sum(nil))}, nil
	case 0:
		f, err := os.Open(path)
		if err != nil {
			return record{}, err
		}
		defer f.Close()
		n, err := io.Copy(h, f)
		if err != nil {
			return record{}, err
		}
		return record{size: n, mtime: fi.ModTime().UnixNano(), sum: hex.EncodeToString(h.Sum(nil))}, nil
	}
	return record{}, fmt.Errorf("%s is neither a file nor a link but %v", path, fi.Mode().Type())
}

// verify compares the entry with its manifest: sizes and modification times,
// and the content of files whose time differs. It returns errNoEntry if there
// is nothing at all.
func verify(entry string) error {
	text, err := os.ReadFile(filepath.Join(entry, "manifest"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Lstat(entry); errors.Is(serr, fs.ErrNotExist) {
			return errNoEntry
		}
	}
	if err != nil {
		return err
	}
	recs, err := parseManifest(text)
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	root := filepath.Join(entry, "files")
	for _, want := range recs {
		if err := check(filepath.Join(root, want.path), want); err != nil {
			return fmt.Errorf("%s: %w", want.path, err)
		}
	}
	return nil
}

func check(path string, want record) error {
	fi, err := os.Lstat(path)
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err // the caller names the file
		}
		return err
	}
	if isLink := fi.Mode().Type() == fs.ModeSymlink; isLink != want.link || !isLink && !fi.Mode().IsRegular() {
		return fmt.Errorf("has become %v", fi.Mode())
	}
	if fi.Size() != want.size {
		return fmt.Errorf("has %d bytes instead of %d", fi.Size(), want.size)
	}
	touched := !want.link && fi.ModTime().UnixNano() != want.mtime
	if !touched && !want.link {
		return nil
	}
	got, err := describe(path)
	if err != nil {
		return err
	}
	if got.sum != want.sum {
		return errors.New("its content has changed")
	}
	if touched {
		// A copied cache. With the time restored, the next look is cheap again.
		t := time.Unix(0, want.mtime)
		_ = os.Chtimes(path, t, t)
	}
	return nil
}

func parseManifest(text []byte) ([]record, error) {
	if !bytes.HasPrefix(text, []byte(manifestHead)) {
		return nil, errors.New("not a manifest")
	}
	end := bytes.LastIndex(text, []byte("\nsum ")) + 1
	if end == 0 || string(text[end:]) != fmt.Sprintf("sum %x\n", sha256.Sum256(text[:end])) {
		return nil, errors.New("cut short or changed")
	}
	var recs []record
	sc := bufio.NewScanner(bytes.NewReader(text[:end]))
	sc.Buffer(nil, len(text)+1)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), " ", 5)
		if len(f) != 5 || f[0] != "f" && f[0] != "l" {
			continue // the head
		}
		r := record{link: f[0] == "l", sum: f[3], path: f[4]}
		var err1, err2 error
		r.size, err1 = strconv.ParseInt(f[1], 10, 64)
		r.mtime, err2 = strconv.ParseInt(f[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil || !filepath.IsLocal(r.path) {
			return nil, fmt.Errorf("bad line %q", sc.Text())
		}
		recs = append(recs, r)
	}
	return recs, sc.Err()
}
