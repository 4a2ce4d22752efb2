package initramfs

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Tree is a kernel's modules, such as /lib/modules/6.1.0.
//
// Dependencies are read from the modules themselves: modpost writes into each
// which others it needs (scripts/mod/modpost.c, add_depends). modules.dep says
// the same, but only exists where depmod has run, and an unpacked package's
// tree has none.
type Tree struct {
	dir     string
	path    map[string]string // of each module, by name
	builtin map[string]bool
}

// Module is a kernel module, decompressed.
type Module struct {
	Name string // with underscores
	Data []byte
}

// OpenTree lists the modules below dir.
func OpenTree(dir string) (*Tree, error) {
	t := &Tree{dir: dir, path: map[string]string{}, builtin: map[string]bool{}}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := moduleName(p); ok && d.Type().IsRegular() {
			t.path[name] = p
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list built-in modules: %w", err)
	}
	for line := range strings.Lines(string(list)) {
		if name, ok := moduleName(strings.TrimSpace(line)); ok {
			t.builtin[name] = true
		}
	}
	if len(t.path)+len(t.builtin) == 0 {
		return nil, fmt.Errorf("list modules: %s has neither modules nor modules.builtin", dir)
	}
	return t, nil
}

// moduleName returns the name of the module in the file p, if it is one.
func moduleName(p string) (name string, ok bool) {
	name, suffix, ok := strings.Cut(path.Base(filepath.ToSlash(p)), ".ko")
	switch suffix {
	case "", ".xz", ".zst", ".gz":
		return canonical(name), ok
	}
	return "", false
}

// canonical returns a module's name as the kernel shows it.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Resolve returns the named modules and all that they need, each after those
// it needs. Names may be spelt with - or _. A module that is built into the
// kernel needs no file and is left out. A name that the kernel does not have
// is an error that tells the most similar ones.
func (t *Tree) Resolve(names ...string) ([]Module, error) {
	r := resolver{tree: t, state: map[string]visit{}}
	for _, n := range names {
		if err := r.visit(canonical(n), ""); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

// ResolveFor returns the modules that the module files ko need, in an order
// that works, without ko themselves.
func (t *Tree) ResolveFor(ko ...Module) ([]Module, error) {
	r := resolver{tree: t, state: map[string]visit{}}
	for _, m := range ko {
		r.state[canonical(m.Name)] = visited // they may need each other
	}
	for _, m := range ko {
		need, err := Depends(m)
		if err != nil {
			return nil, err
		}
		for _, n := range need {
			if err := r.visit(n, m.Name); err != nil {
				return nil, err
			}
		}
	}
	return r.order, nil
}

type visit uint8

const (
	visiting visit = iota + 1
	visited
)

type resolver struct {
	tree  *Tree
	state map[string]visit
	order []Module
}

func (r *resolver) visit(name, neededBy string) error {
	switch {
	case r.state[name] == visited:
		return nil
	case r.state[name] == visiting:
		return fmt.Errorf("module %s needs itself, by way of %s", name, neededBy)
	}
	r.state[name] = visiting
	file, ok := r.tree.path[name]
	if !ok {
		if !r.tree.builtin[name] {
			return r.tree.unknown(name, neededBy)
		}
		r.state[name] = visited
		return nil
	}
	m, err := ReadModule(file)
	if err != nil {
		return err
	}
	need, err := Depends(m)
	if err != nil {
		return err
	}
	for _, n := range need {
		if err := r.visit(n, name); err != nil {
			return err
		}
	}
	r.state[name] = visited
	r.order = append(r.order, m)
	return nil
}

func (t *Tree) unknown(name, neededBy string) error {
	if neededBy != "" {
		neededBy = ", which " + neededBy + " needs,"
	}
	if near := t.near(name); len(near) > 0 {
		return fmt.Errorf("module %s%s is not in %s; near names: %s", name, neededBy, t.dir, strings.Join(near, ", "))
	}
	return fmt.Errorf("module %s%s is not in %s", name, neededBy, t.dir)
}

// near returns up to four names like name, best first.
func (t *Tree) near(name string) []string {
	type candidate struct {
		name string
		far  int
	}
	var all []candidate
	add := func(n string) {
		far := distance(name, n)
		if far <= 1+len(name)/4 || strings.Contains(n, name) {
			all = append(all, candidate{n, far})
		}
	}
	for n := range t.path {
		add(n)
	}
	for n := range t.builtin {
		add(n)
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.far, b.far), strings.Compare(a.name, b.name))
	})
	var out []string
	for _, c := range all[:min(len(all), 4)] {
		out = append(out, c.name)
	}
	return out
}

// distance is the number of bytes to insert, delete or change to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// ReadModule reads a module file: .ko, .ko.xz, .ko.zst or .ko.gz.
func ReadModule(file string) (Module, error) {
	name, ok := moduleName(file)
	if !ok {
		return Module{}, fmt.Errorf("read module %s: the name is not that of a module", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return Module{}, fmt.Errorf("read module: %w", err)
	}
	defer f.Close()
	data, err := decompress(f, path.Ext(file))
	if err != nil {
		return Module{}, fmt.Errorf("read module %s: %w", file, err)
	}
	return Module{Name: name, Data: data}, nil
}

// maxModule bounds what a damaged compressed file can expand to. The largest
// modules with debug information have some 100 MB.
const maxModule = 1 << 30

func decompress(f io.Reader, ext string) ([]byte, error) {
	r := io.Reader(bufio.NewReaderSize(f, 1<<16)) // ulikunitz/xz reads byte by byte
	var err error
	switch ext {
	case ".xz":
		r, err = xz.NewReader(r)
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			r = z
		}
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = fmt.Errorf("more than %d bytes", maxModule)
	}
	return data, err
}

// Depends returns the names of the modules that m says it needs: the field
// depends of its section .modinfo, which is a sequence of key=value strings.
func Depends(m Module) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(m.Data))
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", m.Name, err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("read module %s: no section .modinfo", m.Name)
	}
	info, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", m.Name, err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		value, ok := strings.CutPrefix(string(field), "depends=")
		if !ok {
			continue
		}
		var out []string
		for n := range strings.SplitSeq(value, ",") {
			if n = strings.TrimSpace(n); n != "" {
				out = append(out, canonical(n))
			}
		}
		return out, nil
	}
	return nil, nil
}
