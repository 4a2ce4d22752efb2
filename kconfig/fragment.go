package kconfig

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Fragment is a part of a configuration: options that belong together. It is
// written like a .config. The comment right above an option says why it is set.
type Fragment struct {
	Name  string
	Title string // the first line, a comment
	Lines []FragmentLine
}

// FragmentLine is one option of a Fragment.
type FragmentLine struct {
	Setting
	Why string // one line

	// IfExists marks an option that only some releases have, by a comment
	// that begins with "if it exists:". Elsewhere its absence is no loss.
	IfExists bool

	Number int // of the line in the file, from 1
}

const ifExists = "if it exists:"

// ParseFragment parses a fragment called name. An error begins with the number
// of its line.
func ParseFragment(name string, r io.Reader) (*Fragment, error) {
	f := &Fragment{Name: name}
	var why []string
	number := 0
	err := scan(r, func(n int, l line) error {
		number = n
		switch {
		case l.name != "":
			fl := FragmentLine{Setting: Setting{l.name, l.value}, Number: n, Why: strings.Join(why, " ")}
			if rest, ok := strings.CutPrefix(fl.Why, ifExists); ok {
				fl.IfExists, fl.Why = true, strings.TrimSpace(rest)
			}
			f.Lines = append(f.Lines, fl)
			why = nil
		case l.comment != "":
			text := strings.TrimSpace(l.comment)
			if n == 1 {
				f.Title = text
				return nil
			}
			why = append(why, text)
		default:
			why = nil
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if number == 0 {
		return nil, errors.New("1: a fragment has at least a title")
	}
	return f, nil
}

// Write writes f so that ParseFragment returns the same, but for line numbers.
func (f *Fragment) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", f.Title)
	for _, l := range f.Lines {
		b.WriteByte('\n')
		why := l.Why
		if l.IfExists {
			why = strings.TrimSpace(ifExists + " " + why)
		}
		if why != "" {
			fmt.Fprintf(&b, "# %s\n", why)
		}
		b.WriteString(l.Line() + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

//go:embed fragments/*.config
var fragments embed.FS

// Lab names the fragments that the kernel of the lab consists of, in the order
// in which they are merged. In a list of fragments "lab" stands for them.
func Lab() []string { return []string{"base", "virtio", "kdump", "debuginfo"} }

// LabName stands for the fragments of Lab.
const LabName = "lab"

// For returns the names of fragments with those in place of others that are for
// that architecture: "base-arm64" of "base". LabName becomes its members.
func For(arch string, names []string) []string {
	var out []string
	for _, given := range names {
		expanded := []string{given}
		if given == LabName {
			expanded = Lab()
		}
		for _, n := range expanded {
			if _, err := fs.Stat(fragments, "fragments/"+n+"-"+arch+".config"); err == nil {
				n += "-" + arch
			}
			out = append(out, n)
		}
	}
	return out
}

// Fragments lists the built-in fragments by their names.
func Fragments() ([]*Fragment, error) {
	names, err := fs.Glob(fragments, "fragments/*.config")
	if err != nil {
		return nil, err
	}
	var all []*Fragment
	for _, n := range names {
		f, err := builtin(strings.TrimSuffix(path.Base(n), ".config"))
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

func builtin(name string) (*Fragment, error) {
	file := "fragments/" + name + ".config"
	r, err := fragments.Open(file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := ParseFragment(name, r)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", file, err)
	}
	return f, nil
}

// UnknownError says that there is no fragment or choice of a name.
type UnknownError struct {
	Name string
	Near []string // similar names, best first
}

func (e *UnknownError) Error() string {
	s := fmt.Sprintf("no fragment is called %q", e.Name)
	if len(e.Near) > 0 {
		s += "; there is " + strings.Join(e.Near, ", ")
	}
	return s
}

// Load returns the fragments with these names, each once: built-in ones, those
// of compressions (see Compression) and preemption models (see Preemption), and
// for names that end in .config the files in user; user may be nil. The name
// "lab" stands for those of Lab. An unknown name is an *UnknownError.
func Load(user fs.FS, names ...string) ([]*Fragment, error) {
	var all []*Fragment
	seen := make(map[string]bool)
	for _, given := range names {
		expanded := []string{given}
		if given == LabName {
			expanded = Lab()
		}
		for _, name := range expanded {
			if seen[name] {
				continue
			}
			seen[name] = true
			f, err := load(user, name)
			if err != nil {
				return nil, err
			}
			all = append(all, f)
		}
	}
	return all, nil
}

func load(user fs.FS, name string) (*Fragment, error) {
	if strings.HasSuffix(name, ".config") && user != nil {
		r, err := user.Open(name)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		f, err := ParseFragment(name, r)
		if err != nil {
			return nil, fmt.Errorf("%s:%w", name, err)
		}
		return f, nil
	}
	if c := Compression(name); slices.Contains(Compressions(), c) {
		return c.Fragment(), nil
	}
	if p, ok := strings.CutPrefix(name, "preempt-"); ok && slices.Contains(Preemptions(), Preemption(p)) {
		return Preemption(p).Fragment(), nil
	}
	f, err := builtin(name)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
		return f, err
	}
	return nil, &UnknownError{Name: name, Near: Nearest(name, names())}
}

// names lists all that Load knows without files.
func names() []string {
	all := []string{LabName}
	if fs, err := Fragments(); err == nil {
		for _, f := range fs {
			all = append(all, f.Name)
		}
	}
	for _, c := range Compressions() {
		all = append(all, string(c))
	}
	for _, p := range Preemptions() {
		all = append(all, "preempt-"+string(p))
	}
	return all
}
