package debuginfo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// Source is the debug information of a crashed kernel and of its modules, opened
// as it is asked for. It is safe for concurrent use.
type Source struct {
	p      *crashkit.Program
	beside string // the folder of the dump
	named  bool   // the kernel's file was given
	pack   string // the package that was given instead
	root   string // what the distributions' places are below; "" but in tests
	// cacheDir is where files of packages are kept; "" for the user's cache.
	cacheDir string
	notify   func(string)
	vmlinux  func() (*File, error)

	mu       sync.Mutex
	kernel   *File // what vmlinux opened
	modules  map[*crashkit.Module]*moduleFile
	unpacked map[string]bool            // packages whose modules were unpacked
	objects  func() map[string][]string // objects of modules by name, below the distributions' folders
}

type moduleFile struct {
	f   *File
	err error
}

// New returns the debug information for p, whose dump is the file at path.
// Vmlinux is the kernel's file, or a package that has it: a .deb or .rpm of debug
// information, or the file compressed. If it is "", file or package are looked for beside the dump and
// where distributions install the file, by its build ID. Files are opened when they are
// needed: see Check. Notify, which may be nil, is called before a package is unpacked,
// to the user's cache.
func New(p *crashkit.Program, path, vmlinux string, notify func(string)) *Source {
	s := &Source{
		p: p, beside: filepath.Dir(path), named: vmlinux != "", notify: notify,
		modules: make(map[*crashkit.Module]*moduleFile), unpacked: make(map[string]bool),
	}
	if vmlinux != "" && isPackage(vmlinux) {
		s.pack = vmlinux
	}
	s.vmlinux = sync.OnceValues(func() (f *File, err error) {
		switch {
		case s.pack != "":
			f, err = s.openPackage(s.pack)
		case vmlinux != "":
			f, err = s.openKernel(vmlinux)
		default:
			f, err = s.findKernel()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kernel = f
		return f, err
	})
	s.objects = sync.OnceValue(s.findObjects)
	return s
}

// Check opens the kernel's file now. The error says why it is not the crashed
// kernel's, or wraps ErrNone if it was looked for and not found.
func (s *Source) Check() error {
	_, err := s.vmlinux()
	return err
}

// Named reports whether the kernel's file was given rather than to be looked for.
func (s *Source) Named() bool { return s.named }

// Close releases all files.
func (s *Source) Close() error {
	var errs []error
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kernel != nil { // it was asked for
		errs = append(errs, s.kernel.Close())
	}
	for _, m := range s.modules {
		if m.f != nil {
			errs = append(errs, m.f.Close())
		}
	}
	return errors.Join(errs...)
}

// file returns the file for the code at v, and by how much the code was moved from the
// addresses in the file.
func (s *Source) file(v addr.Virt) (f *File, moved uint64, err error) {
	if m := s.p.ModuleAt(v); m != nil {
		f, err = s.module(m)
		return f, 0, err
	}
	if f, err = s.vmlinux(); err != nil {
		return nil, 0, err
	}
	// Absent without CONFIG_RANDOMIZE_BASE: not moved.
	moved, _ = s.p.Info.Uint("KERNELOFFSET", 16)
	return f, moved, nil
}

// Places returns where the code at v comes from, see File.Places. The error
// wraps ErrNone if there is no file for it.
func (s *Source) Places(v addr.Virt) ([]Place, error) {
	f, moved, err := s.file(v)
	if err != nil {
		return nil, err
	}
	return f.Places(uint64(v) - moved)
}

// SupplyTypes gives the program the types of the kernel's file, if the dump has none.
// It comes before anything else is asked of the program. The error wraps ErrNone if
// there is no file.
func (s *Source) SupplyTypes() error {
	if !s.p.Types.IsEmpty() {
		return nil
	}
	f, err := s.vmlinux()
	if err != nil {
		return err
	}
	types, err := f.Types()
	if err != nil {
		return err
	}
	s.p.SetTypes(types)
	s.p.TypesFrom = f.Path
	return nil
}

// ModuleTypes returns the types that a module's file has, the kernel's that it uses
// among them. The error wraps ErrNone if there is no file.
func (s *Source) ModuleTypes(m *crashkit.Module) (*ctype.Set, error) {
	f, err := s.module(m)
	if err != nil {
		return nil, err
	}
	return f.Types()
}

// openKernel opens a file that must be the crashed kernel's.
func (s *Source) openKernel(path string) (*File, error) {
	want, err := s.p.BuildID()
	if err != nil {
		return nil, fmt.Errorf("compare %s with the dump: %w", path, err)
	}
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	if f.BuildID != want {
		return nil, errors.Join(fmt.Errorf("%s is not the kernel of this dump: %w", path, errBuildID{f.BuildID, want}), f.Close())
	}
	return f, nil
}

// openPackage opens the kernel's file in a package.
func (s *Source) openPackage(pack string) (*File, error) {
	path, err := s.kernelFrom(pack)
	if err != nil {
		return nil, err
	}
	return s.openKernel(path)
}

// The dump names the kernel and its modules, and it is not to be trusted: with
// these characters a name is that of a file and of nothing else.
var fileName = regexp.MustCompile(`^[A-Za-z0-9_+~][A-Za-z0-9._+~-]*$`)

func (s *Source) release() (string, error) {
	release, _ := s.p.Info.Get("OSRELEASE")
	if !fileName.MatchString(release) {
		return "", fmt.Errorf("%w: the kernel's release is %q", ErrNone, release)
	}
	return release, nil
}

// byBuildID returns the name that distributions give the debug information of
// the file with that build ID.
func (s *Source) byBuildID(id string) string {
	if len(id) < 3 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return filepath.Join(s.root, "/usr/lib/debug/.build-id", id[:2], id[2:]+".debug")
}

func (s *Source) findKernel() (*File, error) {
	id, err := s.p.BuildID()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	release, err := s.release()
	if err != nil {
		return nil, err
	}
	places := []string{
		filepath.Join(s.beside, "vmlinux"),
		filepath.Join(s.beside, "vmlinux-"+release),
		filepath.Join(s.root, "/usr/lib/debug/boot/vmlinux-"+release),
		filepath.Join(s.root, "/usr/lib/debug/lib/modules", release, "vmlinux"),
		filepath.Join(s.root, "/usr/lib/debug/usr/lib/modules", release, "vmlinux"),
		filepath.Join(s.root, "/lib/modules", release, "build/vmlinux"),
		filepath.Join(s.root, "/boot/vmlinux-"+release),
		s.byBuildID(id),
	}
	if path, err := s.cached(id); err == nil {
		places = append(places, path)
	}
	var others []error
	for _, path := range places {
		if st, err := os.Stat(path); path == "" || err != nil || !st.Mode().IsRegular() {
			continue
		}
		f, err := s.openKernel(path)
		switch {
		case err != nil:
			others = append(others, err)
		case f.Any():
			return f, nil
		default: // stripped
			others = append(others, f.Close())
		}
	}
	for _, pack := range s.packages() {
		f, err := s.openPackage(pack)
		if err == nil {
			return f, nil
		}
		others = append(others, err)
	}
	if err := errors.Join(others...); err != nil {
		return nil, fmt.Errorf("%w for %s: %w", ErrNone, release, err)
	}
	return nil, fmt.Errorf("%w for %s in %s and in /usr/lib/debug: install the kernel's debuginfo package, or name its vmlinux behind the dump", ErrNone, release, s.beside)
}

// module returns the debug information of a module.
func (s *Source) module(m *crashkit.Module) (*File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.modules[m]; ok {
		return f.f, f.err
	}
	f, err := s.findModule(m)
	s.modules[m] = &moduleFile{f, err}
	return f, err
}

func (s *Source) findModule(m *crashkit.Module) (*File, error) {
	if !fileName.MatchString(m.Name) {
		return nil, fmt.Errorf("%w for module %q", ErrNone, m.Name)
	}
	sections, err := s.p.ModuleSections(m)
	if err != nil {
		return nil, fmt.Errorf("%w for module %s: where its sections lie: %w", ErrNone, m.Name, err)
	}
	id, err := s.p.ModuleBuildID(m)
	if err != nil {
		return nil, fmt.Errorf("%w for module %s: %w", ErrNone, m.Name, err)
	}
	place := func(section string) (uint64, bool) {
		v, ok := sections[section]
		return uint64(v), ok
	}
	paths := []string{
		filepath.Join(s.beside, m.Name+".ko.debug"),
		filepath.Join(s.beside, m.Name+".ko"),
		s.byBuildID(id),
	}
	if dashed := strings.ReplaceAll(m.Name, "_", "-"); dashed != m.Name { // as most files are called
		paths = append(paths, filepath.Join(s.beside, dashed+".ko.debug"), filepath.Join(s.beside, dashed+".ko"))
	}
	if path, err := s.cached(id); err == nil {
		paths = append(paths, path)
	}
	var others []error
	open := func(path string) *File {
		if st, err := os.Stat(path); path == "" || err != nil || !st.Mode().IsRegular() {
			return nil
		}
		f, err := OpenModule(path, place)
		switch {
		case err != nil:
			others = append(others, err)
			return nil
		case !f.Any(): // stripped: the .ko.debug may be elsewhere
			others = append(others, f.Close())
			return nil
		case f.BuildID == id:
			return f
		}
		others = append(others, fmt.Errorf("%s is not the module of this dump: %w", path, errBuildID{f.BuildID, id}), f.Close())
		return nil
	}
	for _, path := range append(paths, s.objects()[m.Name]...) {
		if f := open(path); f != nil {
			return f, nil
		}
	}
	for _, pack := range s.packages() {
		path, ok, err := s.moduleFrom(pack, id)
		others = append(others, err)
		if ok {
			if f := open(path); f != nil {
				return f, nil
			}
		}
	}
	if err := errors.Join(others...); err != nil {
		return nil, fmt.Errorf("%w for module %s: %w", ErrNone, m.Name, err)
	}
	return nil, fmt.Errorf("%w for module %s: put its .ko, not stripped, beside the dump", ErrNone, m.Name)
}

// findObjects lists the objects of modules that distributions installed for the
// crashed kernel, by the names that modules have in memory.
func (s *Source) findObjects() map[string][]string {
	all := make(map[string][]string)
	release, err := s.release()
	if err != nil {
		return all
	}
	for _, dir := range []string{"/usr/lib/debug/lib/modules", "/usr/lib/debug/usr/lib/modules", "/lib/modules"} {
		// What cannot be read is not found.
		_ = filepath.WalkDir(filepath.Join(s.root, dir, release, "kernel"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil //nolint:nilerr // a folder that cannot be read has nothing for us
			}
			name, ok := strings.CutSuffix(strings.TrimSuffix(d.Name(), ".debug"), ".ko")
			if ok {
				name = strings.ReplaceAll(name, "-", "_")
				all[name] = append(all[name], path)
			}
			return nil
		})
	}
	return all
}
