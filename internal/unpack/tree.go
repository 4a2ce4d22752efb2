package unpack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// ErrTooLarge is wrapped by errors about archives that unpack to more than Tree.Max.
var ErrTooLarge = errors.New("unpacks to more than is allowed")

// Tree creates the files of an archive below a directory. Nothing is created or
// linked to outside of it, and nothing is overwritten. Modes are those of the
// archive less the set-user-ID bits and the umask, but the owner can always read and write;
// modification times are those of the archive.
//
// The zero value of everything but Root is useful. Close it.
type Tree struct {
	Root  *os.Root
	Strip int                    // how many leading components of each path are dropped
	Keep  func(name string) bool // which files to create, by the path after Strip; nil: all
	Max   int64                  // bound of the sum of the files' sizes in bytes; 0: 4 GiB

	total int64
	dir   *os.Root // the last directory used: archives come sorted
	path  string   // of dir
	dirs  []dirTime
	buf   []byte
}

type dirTime struct {
	path string
	time time.Time
}

// Entry is what an archive says about one of its files.
type Entry struct {
	Path    string // as in the archive
	Mode    fs.FileMode
	ModTime time.Time
	Size    int64  // of regular files, in bytes
	Link    string // target of a symbolic link, or of a hard link if Mode is regular
}

// defaultMax is the default of Tree.Max.
const defaultMax = 4 << 30

// Add creates the file that e describes, whose content is read from r. Devices,
// pipes and sockets are errors.
func (t *Tree) Add(e Entry, r io.Reader) error {
	name, ok, err := t.name(e.Path)
	if err != nil || !ok {
		return err
	}
	if e.Mode.IsDir() {
		// Made when needed.
		t.dirs = append(t.dirs, dirTime{name, e.ModTime})
		return nil
	}
	if t.Keep != nil && !t.Keep(name) {
		return nil
	}
	limit := t.Max
	if limit == 0 {
		limit = defaultMax
	}
	if e.Size < 0 || e.Size > limit-t.total {
		return fmt.Errorf("%s: %w", name, ErrTooLarge)
	}
	t.total += e.Size
	if err := t.enter(path.Dir(name)); err != nil {
		return err
	}
	base := path.Base(name)
	switch {
	case e.Mode.Type() == fs.ModeSymlink:
		target, err := localLink(name, e.Link)
		if err != nil {
			return err
		}
		return t.dir.Symlink(target, base)
	case e.Mode.IsRegular() && e.Link != "":
		old, ok, err := t.name(e.Link)
		if err != nil {
			return fmt.Errorf("hard link %s: %w", name, err)
		}
		if !ok || t.Keep != nil && !t.Keep(old) {
			return fmt.Errorf("hard link %s to %s, which is left out", name, e.Link)
		}
		return t.Root.Link(old, name)
	case e.Mode.IsRegular():
		return t.write(name, e, r)
	}
	return fmt.Errorf("%s is neither a file nor a link but %v", name, e.Mode.Type())
}

// name returns the clean path below Root for a path of the archive; ok is false for
// what Strip leaves nothing of.
func (t *Tree) name(archived string) (name string, ok bool, err error) {
	name = path.Clean(archived)
	if !filepath.IsLocal(name) || strings.ContainsAny(name, "\x00\n") {
		return "", false, fmt.Errorf("%q is outside of the archive", archived)
	}
	for range t.Strip {
		if _, name, ok = strings.Cut(name, "/"); !ok {
			return "", false, nil
		}
	}
	return name, name != ".", nil
}

// enter makes dir the current directory, and creates it if need be.
func (t *Tree) enter(dir string) error {
	if t.dir != nil && dir == t.path {
		return nil
	}
	if err := t.noLinks(dir); err != nil {
		return err
	}
	if err := t.Root.MkdirAll(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := t.Root.OpenRoot(dir)
	if err != nil {
		return err
	}
	if t.dir != nil {
		t.dir.Close()
	}
	t.dir, t.path = d, dir
	return nil
}

// noLinks refuses a directory that is reached through a symbolic link: a link
// made there could lead out of the root, though its path does not look so.
func (t *Tree) noLinks(dir string) error {
	for i, c := range dir + "/" {
		if c != '/' {
			continue
		}
		fi, err := t.Root.Lstat(dir[:i])
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if fi.Mode().Type() == fs.ModeSymlink {
			return fmt.Errorf("%s: its directory %s is a link", dir, dir[:i])
		}
	}
	return nil
}

func (t *Tree) write(name string, e Entry, r io.Reader) error {
	base := path.Base(name)
	f, err := t.dir.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, e.Mode.Perm()|0o600)
	if err != nil {
		return err
	}
	if t.buf == nil {
		t.buf = make([]byte, chunkSize)
	}
	// Without the wrapper, CopyBuffer prefers File.ReadFrom to buf.
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, r, t.buf)
	if err == nil && n != e.Size {
		err = fmt.Errorf("has %d bytes instead of %d: %w", n, e.Size, io.ErrUnexpectedEOF)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if e.ModTime.IsZero() {
		return nil
	}
	return t.dir.Chtimes(base, e.ModTime, e.ModTime)
}

// Close sets the times of the directories that the archive has entries for.
func (t *Tree) Close() error {
	if t.dir != nil {
		t.dir.Close()
		t.dir = nil
	}
	for i := len(t.dirs) - 1; i >= 0; i-- {
		d := t.dirs[i]
		if fi, err := t.Root.Lstat(d.path); err != nil || !fi.IsDir() {
			continue // nothing of it was kept
		}
		if err := t.Root.Chtimes(d.path, d.time, d.time); err != nil {
			return err
		}
	}
	t.dirs = nil
	return nil
}

// localLink returns the relative target that the symbolic link at name needs
// if the archive's root is not the root of the file system.
func localLink(name, target string) (string, error) {
	dir := path.Dir(name)
	abs := path.Join(dir, target)
	if path.IsAbs(target) {
		abs = path.Clean(target)[1:]
		rel, err := filepath.Rel(dir, abs)
		if err != nil {
			return "", err
		}
		target = rel
	}
	if !filepath.IsLocal(abs) {
		return "", fmt.Errorf("link %s leads to %s, outside of the archive", name, target)
	}
	return target, nil
}
