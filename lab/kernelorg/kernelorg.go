// Package kernelorg gets source trees from kernel.org and its mirrors. What comes
// from there counts only if it is signed: the list of SHA-256 sums by kernel.org,
// the archive itself, uncompressed, by who released it.
package kernelorg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"crashlab/internal/pgp"
	"crashlab/internal/unpack"
	"crashlab/lab/blame"
	"crashlab/lab/fetch"
)

// DefaultMirrors are the places where kernel.org's releases are: folders with
// subfolders such as v6.x.
func DefaultMirrors() []string {
	return []string{
		"https://cdn.kernel.org/pub/linux/kernel",
		"https://mirrors.edge.kernel.org/pub/linux/kernel",
		"https://www.kernel.org/pub/linux/kernel",
	}
}

// Site is kernel.org with its mirrors.
type Site struct {
	Mirrors  []string // addresses of folders, tried in this order
	Keys     Keys
	Dir      string        // where downloads are kept, also those that were interrupted
	Client   *fetch.Client // nil: a client with the defaults
	Progress func(doing string, done, total int64)
	Log      func(format string, a ...any) // told what was verified; may be nil
}

// Release is a release whose sum is known to be kernel.org's.
type Release struct {
	Version Version
	SHA256  string // of linux-VERSION.tar.xz, in hexadecimal
}

// ErrUnreachable is wrapped by the error for mirrors none of which answers.
var ErrUnreachable = errors.New("no mirror of kernel.org can be reached")

const (
	maxSums  = 16 << 20 // bytes; the list of v4.x has 2 MB
	sumsLast = time.Hour
)

// Find returns the newest release that want is the beginning of: "6.1" may be
// 6.1.192. "" is the newest release of all. The list is that of the last hour.
func (s *Site) Find(ctx context.Context, want string) (Release, error) {
	if want != "" && !versionForm.MatchString(want) {
		return Release{}, blame.New(blame.Usage, "find Linux "+want, errors.New("that is no version of a release")).
			WithHint("such as 6.1 or 6.1.192; other trees: git:PATH@REF")
	}
	if want != "" {
		sums, err := s.sums(ctx, Version(want).major())
		if err != nil {
			return Release{}, err
		}
		return newest(sums, want)
	}
	// Folders are never skipped: the first that is missing follows the newest.
	var last Release
	var err error
	for major := firstMajor; ; major++ {
		var sums map[Version]string
		if sums, err = s.sums(ctx, major); err != nil {
			break
		}
		if last, err = newest(sums, ""); err != nil {
			break
		}
	}
	if last.Version != "" && errors.Is(err, fetch.ErrNotFound) {
		return last, nil
	}
	return Release{}, err
}

// firstMajor is where Find begins to look for the newest release.
const firstMajor = 6

func newest(sums map[Version]string, want string) (Release, error) {
	var all []Version
	for v := range sums {
		if want == "" || string(v) == want || strings.HasPrefix(string(v), want+".") {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return Release{}, blame.New(blame.Usage, "find Linux "+want, errors.New("kernel.org has no such release"))
	}
	v := slices.MaxFunc(all, Version.compare)
	return Release{v, sums[v]}, nil
}

// sums returns the signed sums of the releases of one major version.
func (s *Site) sums(ctx context.Context, major int) (map[Version]string, error) {
	doing := fmt.Sprintf("get the list of releases v%d.x", major)
	kept := filepath.Join(s.Dir, fmt.Sprintf("v%d.x-sha256sums.asc", major))
	var old map[Version]string // the list of an earlier day
	if text, err := os.ReadFile(kept); err == nil {
		if old, err = s.verifySums(text); err != nil {
			old = nil
		} else if fi, err := os.Stat(kept); err == nil && time.Since(fi.ModTime()) < sumsLast {
			return old, nil
		}
	}
	s.progress(doing, 0, 0)
	// A mirror whose list is not signed is as good as none.
	var errs []error
	for _, u := range s.urls(major, "sha256sums.asc") {
		text, err := s.client(doing).Bytes(ctx, []string{u}, maxSums)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			sums, verr := s.verifySums(text)
			if verr == nil {
				return sums, keep(kept, text)
			}
			err = fmt.Errorf("%s: %w", u, verr)
		}
		errs = append(errs, err)
	}
	err := errUnreachable(errs)
	if old != nil && errors.Is(err, ErrUnreachable) {
		s.log("taking an older list of releases: %v", err)
		return old, nil
	}
	e := blame.New(blame.Infrastructure, doing, err)
	for _, err := range errs {
		e.Look = append(e.Look, err.Error())
	}
	return nil, e.WithHint("is the network up? CRASHLAB_MIRRORS names other places, and \"none\" takes the distribution's packages")
}

// errUnreachable sums up why no mirror served. It wraps ErrUnreachable unless one
// has a list that somebody else signed, or has no such folder.
func errUnreachable(errs []error) error {
	if len(errs) == 0 {
		return fmt.Errorf("%w: none is set", ErrUnreachable)
	}
	for _, reason := range []error{pgp.ErrBad, pgp.ErrUnknownKey, fetch.ErrNotFound} {
		for _, err := range errs {
			if errors.Is(err, reason) {
				return err
			}
		}
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, errs[0])
}

func (s *Site) verifySums(text []byte) (map[Version]string, error) {
	signed, who, err := s.Keys.Sums.VerifyClear(text)
	if err != nil {
		return nil, fmt.Errorf("sha256sums.asc: %w", err)
	}
	sums, err := parseSums(signed)
	if err != nil {
		return nil, fmt.Errorf("sha256sums.asc: %w", err)
	}
	s.log("sha256sums.asc is signed by %s", who)
	return sums, nil
}

func keep(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone by then, if all went well
	_, err = tmp.Write(text)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

// Unpack downloads the release, unless that is done, and unpacks it into dir,
// an empty directory, after having verified its sum. The signature of the archive is
// verified while it is unpacked; if Unpack returns an error, what is in
// dir is to be thrown away. An interrupted download goes on at the next call.
func (s *Site) Unpack(ctx context.Context, rel Release, dir string) error {
	doing := "get Linux " + string(rel.Version)
	fail := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, ok := errors.AsType[*blame.Error](err); ok {
			return err
		}
		return blame.New(blame.Infrastructure, doing, err)
	}
	name := s.kept(rel, ".tar.xz")
	if err := s.download(ctx, rel, name); err != nil {
		return fail(err)
	}
	sig, err := s.signature(ctx, rel)
	if err != nil {
		return fail(fmt.Errorf("signature: %w", err))
	}
	f, err := os.Open(name)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if err := s.unpack(ctx, f, sig, dir); err != nil {
		return fail(fmt.Errorf("linux-%s.tar.xz: %w", rel.Version, err))
	}
	if err := keep(s.kept(rel, ".tar.sign"), sig); err != nil {
		return fail(err)
	}
	return nil
}

// kept returns the name of a file of rel among the downloads.
func (s *Site) kept(rel Release, ext string) string {
	return filepath.Join(s.Dir, "linux-"+string(rel.Version)+ext)
}

// signature returns the archive's, which was kept if it was right before.
func (s *Site) signature(ctx context.Context, rel Release) ([]byte, error) {
	if sig, err := os.ReadFile(s.kept(rel, ".tar.sign")); err == nil {
		return sig, nil
	}
	return s.client("").Bytes(ctx, s.urls(rel.Version.major(), fmt.Sprintf("linux-%s.tar.sign", rel.Version)), 1<<20)
}

// download gets the archive and compares its sum. What has another is removed.
func (s *Site) download(ctx context.Context, rel Release, name string) error {
	urls := s.urls(rel.Version.major(), filepath.Base(name))
	var errs []error
	// A mirror may have another file than the one before, from which the beginning is.
	for len(urls) > 0 {
		if err := s.client("download "+filepath.Base(name)).File(ctx, urls, name); err != nil {
			return errors.Join(append(errs, err)...)
		}
		got, err := sum(ctx, name)
		if err != nil {
			return err
		}
		if got == rel.SHA256 {
			return nil
		}
		errs = append(errs, fmt.Errorf("the file from %s has the SHA-256 %s and should have %s", urls[0], got, rel.SHA256))
		if err := os.Remove(name); err != nil {
			return err
		}
		urls = urls[1:]
	}
	return errors.Join(errs...)
}

func sum(ctx context.Context, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
	}
}

// unpack unpacks the archive while its signature is verified.
func (s *Site) unpack(ctx context.Context, f *os.File, sig []byte, dir string) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := unpack.Open(ctx, f, fi.Size())
	if err != nil {
		return err
	}
	defer r.Close()
	if err := room(dir, r.Size); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	signed, verify := io.Pipe()
	var verdict error
	var wg sync.WaitGroup
	wg.Go(func() {
		who, err := s.Keys.Releases.Verify(signed, sig)
		if err == nil {
			s.log("%s is signed by %s", filepath.Base(f.Name()), who)
		}
		_, cerr := io.Copy(io.Discard, signed) // the writer must not wait for who has given up
		verdict = errors.Join(err, cerr)
	})
	done := int64(0)
	doing := "unpack " + filepath.Base(f.Name())
	tee := io.TeeReader(&watched{r, func(n int) {
		before := done
		if done += int64(n); done>>23 != before>>23 {
			s.progress(doing, done, r.Size)
		}
	}}, verify)
	tree := &unpack.Tree{Root: root, Strip: 1}
	err = errors.Join(unpack.Tar(tee, tree.Add), tree.Close())
	if err != nil {
		verify.CloseWithError(err)
		wg.Wait()
		return err
	}
	verify.Close()
	wg.Wait()
	return verdict
}

// room refuses to begin what the disk has no room for: size bytes in files.
func room(dir string, size int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	// Files take whole blocks: a fifth more for source trees.
	if need, free := size+size/5, int64(st.Bavail)*st.Bsize; size > 0 && need > free {
		return fmt.Errorf("%d MB are needed and %d are free: %w", need>>20, free>>20, syscall.ENOSPC)
	}
	return nil
}

type watched struct {
	r    io.Reader
	read func(int)
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.read(n)
	return n, err
}

// urls returns the addresses of a file on all mirrors.
func (s *Site) urls(major int, file string) []string {
	var all []string
	for _, m := range s.Mirrors {
		all = append(all, fmt.Sprintf("%s/v%d.x/%s", strings.TrimRight(m, "/"), major, file))
	}
	return all
}

// client returns the client that reports its progress as doing.
func (s *Site) client(doing string) *fetch.Client {
	c := new(fetch.Client)
	if s.Client != nil {
		*c = *s.Client
	}
	if doing != "" {
		c.Progress = func(_ string, done, total int64) { s.progress(doing, done, total) }
	}
	return c
}

func (s *Site) progress(doing string, done, total int64) {
	if s.Progress != nil {
		s.Progress(doing, done, total)
	}
}

func (s *Site) log(format string, a ...any) {
	if s.Log != nil {
		s.Log(format, a...)
	}
}
