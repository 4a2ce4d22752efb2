package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gofrs/flock"

	"crashlab/lab/blame"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
)

// cached is a part of the cache.
type cached struct {
	kind   string
	name   string
	size   int64 // in bytes
	used   time.Time
	dead   bool // serves nobody any more
	remove func(context.Context) error
}

// cachedKinds names the kinds of entries that are listed one by one; of the others
// there are many, and small ones.
var cachedKinds = []string{"kernel", "source"}

// areas are the folders in the cache with things of their own, and what they are.
var areas = [][2]string{{"kbuild", "object tree"}, {"worktree", "worktree"}, {"kernel.org", "download"}, {"rpm", "download"}, {"debs", "download"}, {"apt", "package lists"}}

// cache lists what is in the cache, the largest first.
func (l *Lab) cache(s *store.Store) ([]cached, error) {
	entries, err := s.Entries()
	if err != nil {
		return nil, err
	}
	var all []cached
	for _, e := range entries {
		all = append(all, cached{e.Kind, e.ID, e.Size, e.Used, e.Dead, func(ctx context.Context) error { return s.Remove(ctx, e) }})
	}
	for _, a := range areas {
		des, err := os.ReadDir(s.Area(a[0]))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, blame.New(blame.Infrastructure, "look into the cache", err)
		}
		for _, de := range des {
			if filepath.Ext(de.Name()) == ".lock" {
				continue
			}
			path := filepath.Join(s.Area(a[0]), de.Name())
			c := cached{kind: a[1], name: de.Name(), remove: func(context.Context) error { return removeLocked(path) }}
			if c.size, c.used, err = sizeAndUse(path); err != nil {
				return nil, blame.New(blame.Infrastructure, "look into the cache", err)
			}
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b cached) int { return int(min(max(b.size-a.size, -1), 1)) })
	return all, nil
}

// sizeAndUse returns the size of a file, or of all in a directory, and when any of
// the latter's own files last changed: what builds there touches one each time.
func sizeAndUse(path string) (size int64, last time.Time, err error) {
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // removed just now
			return nil
		}
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			size += fi.Size()
		}
		if p == path || filepath.Dir(p) == path {
			if t := fi.ModTime(); t.After(last) {
				last = t
			}
		}
		return nil
	})
	return size, last, err
}

// removeLocked removes what lies beside a file of the same name and .lock, unless
// somebody has that locked.
func removeLocked(path string) error {
	lock := path + ".lock"
	if _, err := os.Stat(lock); err == nil {
		l := flock.New(lock)
		defer l.Close()
		if got, err := l.TryLock(); err != nil || !got {
			return errors.Join(err, fmt.Errorf("%s: %w", filepath.Base(path), store.ErrInUse))
		}
	}
	return os.RemoveAll(path)
}

// KernelCached writes to w what the cache has: kernels, source trees, object trees and
// downloads, the largest first, with their sizes and the days since their last use.
func (l *Lab) KernelCached(w io.Writer) error {
	s, err := store.Open(l.Settings.Cache, l.Log)
	if err != nil {
		return stageError(blame.Infrastructure, "open the cache", err)
	}
	all, err := l.cache(s)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tname\tsize\tlast used")
	var total, small int64
	n := 0
	for _, c := range all {
		total += c.size
		if !c.listed() {
			small, n = small+c.size, n+1
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.kind, c.name, megabytes(c.size), ago(time.Since(c.used)))
	}
	fmt.Fprintf(t, "%d others\tmodules, images, answers\t%s\t\n", n, megabytes(small))
	fmt.Fprintf(t, "all\t%s\t%s\t\n", s.Dir(), megabytes(total))
	return t.Flush()
}

func (c cached) listed() bool {
	return slices.Contains(cachedKinds, c.kind) || slices.ContainsFunc(areas, func(a [2]string) bool { return a[1] == c.kind })
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func ago(d time.Duration) string {
	switch days := int(d.Hours() / 24); days {
	case 0:
		return "today"
	case 1:
		return "yesterday"
	default:
		return fmt.Sprintf("%d days ago", days)
	}
}

// KernelPrune removes from the cache what was not used for some days, what is
// damaged, and what interrupted builds have left; what is in use stays. It writes to
// w what it removed. All of it can be made again.
func (l *Lab) KernelPrune(ctx context.Context, w io.Writer, days int) error {
	if days < 0 {
		return blame.New(blame.Usage, "prune the cache", fmt.Errorf("%d days", days))
	}
	s, err := store.Open(l.Settings.Cache, l.Log)
	if err != nil {
		return stageError(blame.Infrastructure, "open the cache", err)
	}
	all, err := l.cache(s)
	if err != nil {
		return err
	}
	var freed int64
	var errs []error
	for _, c := range all {
		if !c.dead && time.Since(c.used) < time.Duration(days)*24*time.Hour {
			continue
		}
		err := c.remove(ctx)
		switch {
		case errors.Is(err, store.ErrInUse):
			fmt.Fprintf(w, "in use: %s %s\n", c.kind, c.name)
		case err != nil:
			errs = append(errs, err)
		default:
			freed += c.size
			fmt.Fprintf(w, "removed %s %s, %s\n", c.kind, c.name, megabytes(c.size))
		}
	}
	fmt.Fprintf(w, "%s freed\n", megabytes(freed))
	if err := errors.Join(errs...); err != nil {
		return stageError(blame.Infrastructure, "prune the cache", err)
	}
	return nil
}

// KernelFetch fetches what the kernel of spec is made of, and writes to w where it lies:
// the source tree of one that is built here, which is not built; all else ready to boot.
func (l *Lab) KernelFetch(ctx context.Context, w io.Writer, spec string) error {
	if build, _ := kernels.Tools(spec); !build || strings.HasPrefix(spec, "dir:") {
		k, err := l.kernelOf(ctx, spec, "fetch")
		if err != nil {
			return err
		}
		return describe(w, k)
	}
	stage := l.UI.Begin("fetch")
	_, src, _, err := l.prepare(ctx, spec, stage, false)
	note := ""
	if err == nil {
		note = "Linux " + src.Version
	}
	stage.End(note, false, err)
	if err == nil {
		fmt.Fprintln(w, src.Dir)
	}
	return err
}
