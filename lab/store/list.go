package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Entry is an entry of the store.
type Entry struct {
	Kind string
	ID   string    // its directory's name, by which Key.Name can be read
	Size int64     // of its files, in bytes; 0 if it is damaged or was never finished
	Used time.Time // when Get last returned it
	Dead bool      // what a killed build left, or damaged: Get would make it again
}

// ErrInUse is wrapped by the error of Remove for an entry that is being made.
var ErrInUse = errors.New("in use")

// Entries lists what is in the store, sorted by kind and ID. It verifies nothing.
func (s *Store) Entries() ([]Entry, error) {
	dirs, err := filepath.Glob(filepath.Join(s.dir, "entry", "*", "*"))
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, dir := range dirs {
		fi, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) { // removed just now
			continue
		}
		if err != nil {
			return nil, s.blame("look into the cache", err)
		}
		e := Entry{Kind: filepath.Base(filepath.Dir(dir)), ID: filepath.Base(dir), Used: fi.ModTime(), Dead: true}
		manifest := filepath.Join(dir, "manifest")
		text, err := os.ReadFile(manifest)
		if fi, serr := os.Stat(manifest); err == nil && serr == nil && !strings.Contains(e.ID, tmpMark) {
			e.Used = fi.ModTime()
			recs, perr := parseManifest(text)
			e.Dead = perr != nil
			for _, r := range recs {
				e.Size += r.size
			}
		}
		all = append(all, e)
	}
	return all, nil
}

// Remove removes an entry, unless somebody is making it. Who has got its path
// from Get before loses the files.
func (s *Store) Remove(ctx context.Context, e Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	key, _, _ := strings.Cut(e.ID, tmpMark)
	l := flock.New(s.lockPath(e.Kind, key))
	defer l.Close()
	if got, err := l.TryLock(); err != nil || !got {
		return errors.Join(err, fmt.Errorf("%s/%s: %w", e.Kind, e.ID, ErrInUse))
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "entry", e.Kind, e.ID)); err != nil {
		return s.blame("remove "+e.Kind+"/"+e.ID, err)
	}
	return nil
}

// touch notes that the entry is used.
func (s *Store) touch(entry string) {
	now := time.Now()
	if err := os.Chtimes(filepath.Join(entry, "manifest"), now, now); err != nil {
		s.log.Debug("cannot note that an entry is used", "err", err) // a cache that others own
	}
}
