package kernels

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"crashlab/internal/execx"
	"crashlab/internal/pgp"
	"crashlab/internal/rpm"
	"crashlab/internal/unpack"
	"crashlab/lab/blame"
	"crashlab/lab/fetch"
	"crashlab/lab/store"
)

// rpms provides kernels from RPM packages: files, those in folders, those at
// addresses, or what dnf has on a machine with it. No rpm program is needed.
//
// The digests of each package are verified. A signature that is wrong is an
// error; one with a key that this machine does not have only if keys are set.
type rpms struct {
	store    *store.Store
	log      *slog.Logger
	progress Progress
	run      func(context.Context, execx.Cmd) ([]byte, error)
	client   *fetch.Client
	keys     string   // folder of the keys that packages must be signed with; may be empty
	hostKeys []string // patterns of the files of keys that this machine trusts
}

func newRPMs(s *store.Store, log *slog.Logger, progress Progress, keys string) *rpms {
	return &rpms{
		store: s, log: log, progress: progress, run: execx.Run, client: new(fetch.Client), keys: keys,
		hostKeys: []string{"/etc/pki/rpm-gpg/*", "/usr/lib/rpm/gnupg/keys/*"},
	}
}

func (r *rpms) forms() []Form {
	return []Form{
		{"rpm:DIR", "the newest kernel among the RPM packages in a folder"},
		{"rpm:FILE,URL", "the kernel of these packages: kernel-core, -modules, -devel and others"},
		{"rpm", "the newest kernel that dnf has on this machine"},
		{"rpm:5.14.0-503", "the kernel of this version that dnf has"},
	}
}

// rpmVersion is part of the key of kernels from RPMs; it changes when unpacking
// does something else than before.
const rpmVersion = "1"

// asksDNF reports whether want, what follows "rpm:", is a version and not a file.
func asksDNF(want string) bool {
	if want == "" {
		return true
	}
	_, err := os.Lstat(want)
	return err != nil && dnfVersion.MatchString(want) && !strings.HasSuffix(want, ".rpm")
}

func (r *rpms) resolve(ctx context.Context, spec, want string, fresh bool) (*Plan, error) {
	if asksDNF(want) {
		return r.dnfPlan(ctx, spec, want, fresh)
	}
	set, err := r.collect(ctx, spec, want)
	if err != nil {
		return nil, err
	}
	return set.plan(spec), nil
}

func (r *rpms) unpack(ctx context.Context, p *Plan, dir string) error {
	_, want, _ := strings.Cut(p.Spec, ":")
	if asksDNF(want) {
		scratch := filepath.Join(dir, "rpms")
		if err := os.Mkdir(scratch, 0o755); err != nil {
			return err
		}
		defer os.RemoveAll(scratch)
		if err := r.dnfDownload(ctx, p, scratch); err != nil {
			return err
		}
		want = scratch
	}
	set, err := r.collect(ctx, p.Spec, want)
	if err != nil {
		return err
	}
	if set.release != p.Release {
		return blame.New(blame.Infrastructure, "unpack "+p.Release, fmt.Errorf("the packages have become those of %s", set.release))
	}
	return r.unpackSet(ctx, set, dir)
}

// unpackSet unpacks the packages at the same time.
func (r *rpms) unpackSet(ctx context.Context, set *rpmSet, dir string) error {
	doing := "unpack " + set.release
	var size, installed int64
	for _, f := range set.files {
		size, installed = size+f.size, installed+f.installed
	}
	if err := checkSpace(dir, installed); err != nil {
		return blame.New(blame.Infrastructure, doing, err).WithHint("free some space, or set CRASHLAB_CACHE to a directory on another disk")
	}
	keys, err := r.keyring()
	if err != nil {
		return blame.New(blame.Usage, "read the keys", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var done atomic.Int64
	read := func(n int) { r.progress(doing, min(done.Add(int64(n)), 2*size), 2*size) } // verified, then unpacked
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, f := range set.files {
		wg.Go(func() {
			if err := r.unpackFile(ctx, f, root, keys, read); err != nil {
				party := blame.Infrastructure
				if errors.Is(err, rpm.ErrNoPayload) {
					party = blame.Usage
				}
				cancel(blame.New(party, "unpack "+f.path, err)) // the first one counts
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// There is none if everything is built in.
	if found, _ := filepath.Glob(filepath.Join(dir, "*/lib/modules", set.release, "kernel")); len(found) == 0 {
		if err := os.MkdirAll(filepath.Join(dir, "lib/modules", set.release, "kernel"), 0o755); err != nil {
			return err
		}
	}
	return relocateHeaders(root)
}

func (r *rpms) unpackFile(ctx context.Context, f *rpmFile, root *os.Root, keys *pgp.Keyring, read func(int)) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	p, err := rpm.Open(&counted{file, read}, f.size)
	if err != nil {
		return err
	}
	if id, err := p.ID(ctx); err != nil || id != f.id {
		return errors.Join(err, errors.New("the file has changed just now"))
	}
	if err := r.verify(ctx, p, f.path, keys); err != nil {
		return err
	}
	tree := &unpack.Tree{Root: root, Keep: keepRPM, Max: f.installed + f.installed/8 + 1<<20}
	return errors.Join(p.Unpack(ctx, tree), tree.Close())
}

// verify compares the digests of p, and verifies its signatures.
func (r *rpms) verify(ctx context.Context, p *rpm.Package, name string, keys *pgp.Keyring) error {
	digests, err := p.Verify(ctx)
	if err != nil {
		return err
	}
	why := pgp.ErrUnsigned
	for _, s := range p.Signatures() {
		who, err := keys.Verify(p.Signed(s), s.Packet)
		switch {
		case err == nil:
			r.log.Debug("package", "file", name, "digests", digests, "signed by", who)
			return nil
		case !errors.Is(err, pgp.ErrUnknownKey):
			return err
		}
		why = err
	}
	if r.keys != "" {
		return why
	}
	r.log.Info(fmt.Sprintf("%s is whole, but who made it is not known: %v", name, why))
	return nil
}

// keyring reads the keys that packages may be signed with. Files that are no keys
// are passed over where they are not the user's own.
func (r *rpms) keyring() (*pgp.Keyring, error) {
	patterns := r.hostKeys
	if r.keys != "" {
		patterns = []string{filepath.Join(r.keys, "*")}
	}
	all := new(pgp.Keyring)
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if errors.Is(err, syscall.EISDIR) {
				continue
			}
			var k *pgp.Keyring
			if err == nil {
				k, err = pgp.ReadKeyring(text)
			}
			if err != nil && r.keys != "" {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if err != nil {
				r.log.Debug("no keys", "file", name, "err", err)
				continue
			}
			all.Add(k)
		}
	}
	if r.keys != "" && len(all.Fingerprints()) == 0 {
		return nil, fmt.Errorf("there are none in %s", r.keys)
	}
	return all, nil
}

// keepRPM says which files of the packages are worth unpacking.
func keepRPM(name string) bool {
	for _, dir := range []string{"boot/", "lib/modules/", "usr/lib/modules/"} {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	switch {
	case strings.HasPrefix(name, "usr/src/"):
		return !strings.HasPrefix(name, "usr/src/debug/")
	case strings.HasPrefix(name, "usr/lib/debug/"):
		return strings.HasPrefix(path.Base(name), "vmlinux")
	}
	return false
}

// collect reads the headers of the packages that want names, separated by
// commas, and chooses those of one kernel. What is at an address is downloaded.
func (r *rpms) collect(ctx context.Context, spec, want string) (*rpmSet, error) {
	doing := fmt.Sprintf("kernel %q", spec)
	usage := func(err error) error { return blame.New(blame.Usage, doing, err) }
	all := strings.Split(want, ",")
	if _, err := os.Stat(want); err == nil { // a comma in its name
		all = []string{want}
	}
	var files []*rpmFile
	for _, name := range all {
		if name == "" {
			return nil, usage(errors.New("an empty name is no package"))
		}
		names := []string{name}
		named := true
		if strings.Contains(name, "://") {
			local, err := r.download(ctx, name)
			if err != nil {
				return nil, err
			}
			names[0] = local
		} else if fi, err := os.Stat(name); err != nil {
			return nil, usage(err)
		} else if fi.IsDir() {
			named = false
			if names, err = filepath.Glob(filepath.Join(name, "*.rpm")); err != nil {
				return nil, usage(err)
			}
			if len(names) == 0 {
				return nil, usage(fmt.Errorf("there are no packages in %s", name))
			}
		}
		for _, n := range names {
			f, err := readRPM(ctx, n)
			if err != nil {
				party := blame.Usage
				if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, rpm.ErrDamaged) {
					party = blame.Infrastructure
				}
				return nil, blame.New(party, doing, fmt.Errorf("%s: %w", n, err))
			}
			f.named = named
			files = append(files, f)
		}
	}
	set, err := chooseRPMs(files)
	if err != nil {
		return nil, blame.New(blame.Usage, doing, err).WithHint("kernel-core (Fedora, CentOS, RHEL) and kernel-default (openSUSE) have the image, the modules are in kernel-modules-core and kernel-modules, and what modules are built with in kernel-devel")
	}
	for _, other := range set.others {
		r.log.Info(fmt.Sprintf("there is also %s; taking %s", other, set.release))
	}
	return set, nil
}

// download gets the package at an address, unless that is done.
func (r *rpms) download(ctx context.Context, url string) (string, error) {
	doing := "download " + path.Base(url)
	c := *r.client
	c.Progress = func(_ string, done, total int64) { r.progress(doing, done, total) }
	name := filepath.Join(r.store.Area("rpm"), fmt.Sprintf("%.12x", sha256.Sum256([]byte(url))), filepath.Base(path.Clean("/"+path.Base(url))))
	if err := c.File(ctx, []string{url}, name); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", blame.New(blame.Infrastructure, doing, err)
	}
	// What is no package must not stay.
	if _, err := readRPM(ctx, name); err != nil {
		os.RemoveAll(filepath.Dir(name))
		return "", blame.New(blame.Infrastructure, doing, fmt.Errorf("%s: %w", url, err))
	}
	return name, nil
}

// checkSpace says before anything is unpacked that the disk is too small for it.
func checkSpace(dir string, need int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	need += need / 10 // files take whole blocks
	if free := int64(st.Bavail) * st.Bsize; need > free {
		return fmt.Errorf("%d MB are needed and %d are free: %w", need>>20, free>>20, syscall.ENOSPC)
	}
	return nil
}

// headersBelow finds what modules are built with, by the link that every
// distribution has for it.
func headersBelow(dir, release string) string {
	for _, link := range []string{"lib/modules", "usr/lib/modules"} {
		p, err := filepath.EvalSymlinks(filepath.Join(dir, link, release, "build"))
		if err == nil && exists(filepath.Join(p, "Makefile")) {
			return p
		}
	}
	return ""
}
