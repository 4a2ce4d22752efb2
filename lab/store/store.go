// Package store keeps what is expensive to make (unpacked kernels, built
// modules, initramfs images) in directories named after a hash of everything
// that went into them.
//
// An entry is built in a scratch directory beside its place and appears there
// by one rename, together with a manifest of its files. What an interrupted
// build leaves behind is therefore never mistaken for an entry; it is swept
// away by the next build. Files that were changed, cut short or removed later
// are found by the manifest when the entry is looked up, and the entry is made
// again.
//
// On disk:
//
//	CACHEDIR.TAG            marks the directory for backup programs, and as ours
//	lock/KIND-ID            one lock file per key, never removed
//	entry/KIND/ID/manifest  what the entry consists of
//	entry/KIND/ID/files/    what Get returns
//	entry/KIND/ID.tmp-*/    being built, or left by a build that was killed
//	area/NAME/              what users of the store keep there without a key
package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"crashlab/lab/blame"
)

// EnvDir names the environment variable that overrides the place of the cache.
const EnvDir = "CRASHLAB_CACHE"

const (
	tmpMark   = ".tmp-"
	lockRetry = 20 * time.Millisecond
)

// Store is a cache directory. It is safe for use by several goroutines and
// by several processes at once.
type Store struct {
	dir string
	log *slog.Logger
}

// DefaultDir returns $CRASHLAB_CACHE, or crashlab in the user's cache directory.
func DefaultDir() (string, error) {
	if d := os.Getenv(EnvDir); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", blame.New(blame.Infrastructure, "find the cache directory", err).
			WithHint("set %s to a directory for the cache", EnvDir)
	}
	return filepath.Join(d, "crashlab"), nil
}

// Open opens the store in dir and creates it where there is none. An empty
// dir means DefaultDir. A nil log discards.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{log: log.With("layer", "store")}
	var err error
	if dir == "" {
		dir, err = DefaultDir()
	} else {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return nil, err
	}
	s.dir = dir
	for _, d := range []string{"lock", "entry"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, s.blame("open the cache", err)
		}
	}
	tag := filepath.Join(dir, "CACHEDIR.TAG")
	if _, err := os.Lstat(tag); errors.Is(err, fs.ErrNotExist) {
		const text = "Signature: 8a477f597d28d172789f06886806bc55\n# crashlab: everything here can be made again.\n"
		if err := os.WriteFile(tag, []byte(text), 0o644); err != nil {
			return nil, s.blame("open the cache", err)
		}
	}
	return s, nil
}

// Dir returns the store's directory, an absolute path.
func (s *Store) Dir() string { return s.dir }

// Area returns the directory called name for things without a key, such as
// package lists. It need not exist; its user sees to locks and to wholeness.
func (s *Store) Area(name string) string { return filepath.Join(s.dir, "area", name) }

// Key identifies an entry by what it is made from.
type Key struct {
	Kind   string   // what it is: "kernel", "module"; the name of a directory
	Name   string   // for people who look into the cache: "debian-6.1.0-56"; not part of the identity
	Inputs []string // everything the content depends on, in a fixed order
}

// ID returns the entry's directory name: Name and a hash of Kind and Inputs.
func (k Key) ID() string {
	h := sha256.New()
	for _, in := range append([]string{"crashlab store 1", k.Kind}, k.Inputs...) {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(in)))
		h.Write(n[:])
		h.Write([]byte(in))
	}
	id := hex.EncodeToString(h.Sum(nil)[:12])
	name := strings.Map(func(r rune) rune {
		if r <= ' ' || r == '/' || r == 0x7f {
			return '-'
		}
		return r
	}, k.Name)
	if name == "" {
		return id
	}
	return strings.TrimLeft(name, ".") + "-" + id
}

func (k Key) String() string { return k.Kind + "/" + k.ID() }

// Path returns where the files of k are, or would be: unlike Get it does not
// build or verify them.
func (s *Store) Path(k Key) string { return filepath.Join(s.dir, "entry", k.Kind, k.ID(), "files") }

// Get returns the directory that holds the entry for k. When there is none, or
// when its files are not what they were, build is called to fill an empty
// directory; hit reports that it was not needed. While one caller builds, in
// this process or another, others who want the same key wait for it.
//
// The files belong to the store: they must not be changed. An error of build
// is returned as it is, unless the disk is full; nothing of a failed build is
// kept.
func (s *Store) Get(ctx context.Context, k Key, build func(ctx context.Context, dir string) error) (path string, hit bool, err error) {
	if err := ctx.Err(); err != nil {
		return "", false, err
	}
	entry := filepath.Join(s.dir, "entry", k.Kind, k.ID())
	files := filepath.Join(entry, "files")
	// An entry appears whole, so that a good one needs no lock.
	if verify(entry) == nil {
		s.touch(entry)
		return files, true, nil
	}
	unlock, err := s.lock(ctx, k.Kind, k.ID())
	if err != nil {
		return "", false, err
	}
	defer unlock()
	switch err := verify(entry); {
	case err == nil: // built while we waited
		return files, true, nil
	case errors.Is(err, errNoEntry):
	default:
		s.log.Warn(fmt.Sprintf("cached %s is damaged, making it again: %v", k, err))
	}
	if err := s.build(ctx, k, entry, build); err != nil {
		return "", false, err
	}
	return files, false, nil
}

// build makes the entry; the caller holds its lock.
func (s *Store) build(ctx context.Context, k Key, entry string, build func(context.Context, string) error) error {
	parent := filepath.Dir(entry)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return s.blame("create "+k.String(), err)
	}
	s.sweep(k.Kind, k.ID())
	tmp, err := os.MkdirTemp(parent, k.ID()+tmpMark)
	if err != nil {
		return s.blame("create "+k.String(), err)
	}
	defer os.RemoveAll(tmp) // gone by then, if all went well
	files := filepath.Join(tmp, "files")
	// MkdirTemp made tmp private; others may read the cache.
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Mkdir(files, 0o755)); err != nil {
		return s.blame("create "+k.String(), err)
	}
	if err := build(ctx, files); err != nil {
		return s.full("make "+k.String(), err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := writeManifest(ctx, tmp, k); err != nil {
		return s.blame("make "+k.String(), err)
	}
	if err := os.RemoveAll(entry); err != nil {
		return s.blame("remove damaged "+k.String(), err)
	}
	if err := os.Rename(tmp, entry); err != nil {
		return s.blame("make "+k.String(), err)
	}
	return nil
}

// sweep removes what killed builds left of kind. The caller holds the lock of
// held, whose leftovers are therefore dead; those of other keys are dead when
// their lock is free.
func (s *Store) sweep(kind, held string) {
	dir := filepath.Join(s.dir, "entry", kind)
	des, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, de := range des {
		id, _, ok := strings.Cut(de.Name(), tmpMark)
		if !ok {
			continue
		}
		if id != held {
			l := flock.New(s.lockPath(kind, id))
			if got, err := l.TryLock(); err != nil || !got {
				continue
			}
			defer l.Close()
		}
		s.log.Debug("sweep " + de.Name())
		_ = os.RemoveAll(filepath.Join(dir, de.Name()))
	}
}

// Clear removes every entry that nobody is building, and the areas. It returns
// the number of entries.
func (s *Store) Clear(ctx context.Context) (n int, err error) {
	entries, err := filepath.Glob(filepath.Join(s.dir, "entry", "*", "*"))
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		id, _, _ := strings.Cut(filepath.Base(e), tmpMark)
		l := flock.New(s.lockPath(filepath.Base(filepath.Dir(e)), id))
		got, err := l.TryLock()
		if err != nil || !got {
			errs = append(errs, fmt.Errorf("%s is in use", filepath.Base(e)))
			continue
		}
		if err := os.RemoveAll(e); err != nil {
			errs = append(errs, err)
		} else {
			n++
		}
		l.Close()
	}
	errs = append(errs, os.RemoveAll(filepath.Join(s.dir, "area")))
	return n, errors.Join(errs...)
}

func (s *Store) lockPath(kind, id string) string {
	return filepath.Join(s.dir, "lock", kind+"-"+id)
}

// lock takes the lock of one key, waiting for whoever has it.
func (s *Store) lock(ctx context.Context, kind, id string) (unlock func(), err error) {
	l := flock.New(s.lockPath(kind, id))
	got, err := l.TryLock()
	if err == nil && !got {
		s.log.Warn("waiting for another run, which is making " + kind + "/" + id)
		_, err = l.TryLockContext(ctx, lockRetry)
	}
	if cerr := ctx.Err(); cerr != nil {
		l.Close()
		return nil, cerr
	}
	if err != nil {
		l.Close()
		return nil, s.blame("lock "+kind+"/"+id, err)
	}
	return func() { l.Close() }, nil
}
