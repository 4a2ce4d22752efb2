package kernels

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
	"crashlab/lab/store"
)

// apt is the package manager with one set of package lists.
type apt struct {
	*debian
	spec    string   // for messages
	suite   string   // empty: what the host's sources say
	private string   // our own directory for lists; empty: the host's
	options []string // -o NAME=VALUE…, which make apt use all that
}

var suiteName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// apt returns the package manager for spec. The host's package lists serve if
// there are any; otherwise, and for another suite than the host's, lists are
// kept in the cache, as updating the host's takes root. If fresh, the lists in
// the cache are updated and used from then on.
func (d *debian) apt(ctx context.Context, spec string, fresh bool) (*apt, error) {
	provider, _, _ := strings.Cut(spec, ":")
	_, suite, other := strings.Cut(provider, "@")
	if other && !suiteName.MatchString(suite) {
		return nil, blame.New(blame.Usage, fmt.Sprintf("kernel %q", spec), fmt.Errorf("%q is not the name of a suite", suite))
	}
	a := &apt{debian: d, spec: spec, suite: suite}
	if os.Geteuid() == 0 {
		// Or apt drops its rights, cannot write to our directory, and warns.
		a.options = append(a.options, "-o", "APT::Sandbox::User=root")
	}
	private := filepath.Join(d.store.Area("apt"), "host")
	if other {
		private = filepath.Join(d.store.Area("apt"), suite)
	}
	switch {
	case other, fresh, !hasLists(d.lists), newer(filepath.Join(private, "lists"), d.lists):
		a.private = private
	default:
		return a, nil
	}
	if fresh || !hasLists(filepath.Join(private, "lists")) {
		retries := "3"
		if fresh {
			retries = "0" // a download has just failed, after as many
		}
		if err := a.update(ctx, retries); err != nil {
			return nil, err
		}
	}
	a.use(private)
	return a, nil
}

// use adds the options that make apt use the lists in dir.
func (a *apt) use(dir string) {
	a.options = append(a.options,
		"-o", "Dir::State="+dir,
		"-o", "Dir::State::lists="+filepath.Join(dir, "lists"),
		"-o", "Dir::State::status="+filepath.Join(dir, "status"),
		"-o", "Dir::Cache="+dir,
		"-o", "Dir::Cache::archives="+filepath.Join(dir, "archives"))
	if a.suite != "" {
		a.options = append(a.options,
			"-o", "Dir::Etc::sourcelist=/dev/null",
			"-o", "Dir::Etc::sourceparts="+filepath.Join(dir, "sources"))
	}
}

// update makes the private lists anew beside the old ones and replaces them.
func (a *apt) update(ctx context.Context, retries string) error {
	parent := filepath.Dir(a.private)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	lock := flock.New(a.private + ".lock")
	defer lock.Close()
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(parent, filepath.Base(a.private)+".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	for _, d := range []string{"lists/partial", "archives/partial", "sources"} {
		if err := os.MkdirAll(filepath.Join(fresh, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(fresh, "status"), nil, 0o644); err != nil {
		return err
	}
	if a.suite != "" {
		archive, err := a.archive(ctx)
		if err != nil {
			return err
		}
		keys, err := a.of.keyFile(fresh)
		if err != nil {
			return err
		}
		source := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n", archive, a.suite, keys)
		if err := os.WriteFile(filepath.Join(fresh, "sources", "crashlab.sources"), []byte(source), 0o644); err != nil {
			return err
		}
	}
	b := *a
	b.options = append([]string{}, a.options...)
	b.use(fresh)
	a.progress("update the package lists", 0, 0)
	_, err = b.exec(ctx, nil, "apt-get", "-q",
		"-o", "APT::Update::Error-Mode=any", // or a list that is missing is only a warning
		"-o", "Acquire::Retries="+retries,
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
		"update")
	if err != nil {
		err = a.network("update the package lists", err)
		blame.Of(err).Replay = "apt-get update" // fresh is gone by then
		return err
	}
	if !hasLists(filepath.Join(fresh, "lists")) {
		return blame.New(blame.Infrastructure, "update the package lists", errors.New("apt-get update got none")).
			WithHint("see that %s has a source of packages", a.etc)
	}
	if err := os.RemoveAll(a.private); err != nil {
		return err
	}
	return os.Rename(fresh, a.private)
}

// archive returns where the distribution's packages are: where the user says,
// or where the host gets them from, as other suites are in the same place.
func (a *apt) archive(ctx context.Context) (string, error) {
	if a.mirror != "" {
		return a.mirror, nil
	}
	out, err := a.exec(ctx, nil, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	if uri := a.of.pickArchive(string(out)); uri != "" {
		return uri, nil
	}
	e := blame.New(blame.Infrastructure, fmt.Sprintf("find %s's archive", a.of.origin), errors.New("the sources of apt name none"))
	if a.of.name == "ubuntu" {
		return "", e.WithHint("set CRASHLAB_UBUNTU to the address of a mirror, such as stands behind URIs: in an Ubuntu's own sources")
	}
	return "", e.WithHint("see that %s has a source of %s's packages", a.etc, a.of.origin)
}

// pickArchive returns the address of the distribution's main archive among lines of
// ORIGIN|LABEL|ADDRESS. Before the first update apt does not know the first two.
func (d *distribution) pickArchive(lines string) string {
	unknown := ""
	for line := range strings.Lines(lines) {
		f := strings.Split(strings.TrimSpace(line), "|")
		switch {
		case len(f) != 3:
		case f[0] == d.origin && f[1] == d.origin:
			return f[2]
		case f[0] == "" && unknown == "" && strings.HasSuffix(strings.TrimRight(f[2], "/"), "/"+d.name):
			unknown = f[2]
		}
	}
	return unknown
}

// download fetches the packages of p. They lie in dir, in which an interrupted
// call leaves those that it has, until done is called.
func (a *apt) download(ctx context.Context, p *Plan) (dir string, done func() error, err error) {
	key := store.Key{Kind: "debs", Name: p.Release}
	for _, q := range p.Packages {
		key.Inputs = append(key.Inputs, q.Name, q.Version, q.SHA256)
	}
	dir = filepath.Join(a.store.Area("debs"), key.ID())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	return dir, func() error { return os.RemoveAll(dir) }, a.downloadTo(ctx, p, dir)
}

// debFile finds the file of q in dir, and compares its hash with the one that
// apt has from the signed lists.
func debFile(q Package, dir string) (name string, err error) {
	found, err := filepath.Glob(filepath.Join(dir, q.Name+"_*.deb"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("apt downloaded %d files of that name", len(found))
	}
	f, err := os.Open(found[0])
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != q.SHA256 {
		return found[0], fmt.Errorf("%s has the SHA-256 %s, and not %s as apt's lists say", found[0], got, q.SHA256)
	}
	return found[0], nil
}

func (a *apt) downloadTo(ctx context.Context, p *Plan, dir string) error {
	args := []string{"-qq", "-o", "APT::Status-Fd=1", "download"}
	missing := int64(0)
	for _, q := range p.Packages {
		name, err := debFile(q, dir)
		if err == nil {
			continue // an earlier call has got it
		}
		if name != "" {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
		missing += q.Size
		args = append(args, q.Name+"="+q.Version)
	}
	if missing == 0 {
		return nil
	}
	if err := checkSpace(dir, missing); err != nil {
		return blame.New(blame.Infrastructure, "download "+p.Release, err)
	}
	c := execx.Cmd{Dir: dir, Log: &statusLog{report: func(percent float64) {
		a.progress("download "+p.Release, int64(percent/100*float64(p.Size())), p.Size())
	}}}
	_, err := a.exec(ctx, &c, "apt-get", args...)
	if err != nil {
		return &unavailableError{a.network("download "+p.Release, err)}
	}
	return nil
}

// cache runs apt-cache.
func (a *apt) cache(ctx context.Context, args ...string) ([]byte, error) {
	out, err := a.exec(ctx, nil, "apt-cache", args...)
	if err != nil {
		return nil, blame.New(blame.Infrastructure, "ask apt for its kernels", err)
	}
	return out, nil
}

func (a *apt) exec(ctx context.Context, c *execx.Cmd, name string, args ...string) ([]byte, error) {
	if c == nil {
		c = new(execx.Cmd)
	}
	c.Argv = append(append([]string{name}, a.options...), args...)
	c.Env = append(c.Env, "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := a.run(ctx, *c)
	if execx.NotFound(err) {
		return nil, blame.New(blame.Infrastructure, "kernel "+a.spec, err).
			WithHint("%s's kernels need apt on the host", a.of.origin)
	}
	return out, err
}

// network shows apt's own words.
func (a *apt) network(doing string, err error) error {
	var e *execx.Error
	if !errors.As(err, &e) || e.Code < 0 {
		return err
	}
	b := blame.New(blame.Infrastructure, doing, err)
	for line := range strings.Lines(e.Tail) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "W: ") {
			b.Look = append(b.Look, line)
		}
	}
	b.Replay = execx.Quote(e.Argv)
	return b.WithHint("is the network up? apt takes a proxy from http_proxy or %s/apt.conf.d", a.etc)
}

// fingerprint changes whenever apt's answers may.
func (a *apt) fingerprint() (string, error) {
	lists, more := a.lists, []string{a.etc + "/sources.list", a.etc + "/sources.list.d/*"}
	if a.private != "" {
		lists = filepath.Join(a.private, "lists")
	}
	var names []string
	for _, g := range append(more, lists+"/*") {
		found, err := filepath.Glob(g)
		if err != nil {
			return "", err
		}
		names = append(names, found...)
	}
	h := sha256.New()
	for _, n := range names {
		fi, err := os.Stat(n)
		if errors.Is(err, fs.ErrNotExist) || err == nil && fi.IsDir() {
			continue
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, n, fi.Size(), fi.ModTime().UnixNano())
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// hasLists reports whether apt-get update was ever run with dir for its lists.
func hasLists(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "*_Packages*"))
	return err == nil && len(found) > 0
}

// newer reports whether the lists in a were updated after those in b.
func newer(a, b string) bool {
	fa, erra := os.Stat(a)
	fb, errb := os.Stat(b)
	return erra == nil && (errb != nil || fa.ModTime().After(fb.ModTime()))
}

// statusLog picks the progress out of what apt writes to APT::Status-Fd:
// dlstatus:FILE:PERCENT:TEXT.
type statusLog struct {
	report func(percent float64)

	mu   sync.Mutex
	line []byte
}

func (s *statusLog) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = append(s.line, p...)
	for {
		line, rest, ok := bytes.Cut(s.line, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		s.line = rest
		if f := strings.SplitN(string(line), ":", 4); len(f) == 4 && f[0] == "dlstatus" {
			if percent, err := strconv.ParseFloat(f[2], 64); err == nil {
				s.report(percent)
			}
		}
	}
}
