// Package scenarios holds what can be crashed and what is expected of it. A
// scenario is a folder with a scenario.yaml and a LESSON.md; some are built in, and
// users add folders of their own.
package scenarios

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crashlab/crashkit/check"
)

// Scenario is one way to crash a kernel.
type Scenario struct {
	Name    string // of the folder too
	Title   string // one line
	Summary string // a paragraph
	Kernel  string // spec of the kernel it runs on unless the user says otherwise
	Trigger Trigger
	Module  string            // which Trigger loads; "" for other triggers
	Sysctl  map[string]string // set right before the trigger, by name
	Guest   Guest
	Timeouts

	Expect *check.Suite // compiled against facts.Facts
	Lesson string       // Markdown

	File string // the scenario.yaml, for messages
	Dir  string // the scenario's folder; "" for a built-in one
}

// Trigger says what makes the kernel crash.
type Trigger string

// The triggers.
const (
	TriggerModule Trigger = "module" // the module is loaded and crashes
	TriggerSysRq  Trigger = "sysrq"  // c is written to /proc/sysrq-trigger
	TriggerNMI    Trigger = "nmi"    // an NMI is sent, as by the button that servers have for it
)

// Guest is the machine that crashes.
type Guest struct {
	MemoryMiB   int    `yaml:"memory_mib"`
	CPUs        int    `yaml:"cpus"`
	Crashkernel string `yaml:"crashkernel"` // memory reserved for the capture kernel, as the kernel's parameter takes it
	Cmdline     string `yaml:"cmdline"`     // added to the kernel's command line
}

// Timeouts bound the phases of the run with hardware acceleration; emulation gets a
// multiple. 0 means the lab's own.
type Timeouts struct {
	Boot    time.Duration `yaml:"boot"`
	Arm     time.Duration `yaml:"arm"`
	Trigger time.Duration `yaml:"trigger"`
	Capture time.Duration `yaml:"capture"` // boot of the capture kernel
	Copy    time.Duration `yaml:"copy"`
}

//go:embed */scenario.yaml */LESSON.md
var builtin embed.FS

// origin is a place with scenarios.
type origin struct {
	fsys   fs.FS
	prefix string // of the files' names in messages
	dir    string // "" for the built-in ones
}

// origins returns the folders of the user, then the built-in scenarios.
func origins(dirs []string) []origin {
	var list []origin
	for _, dir := range dirs {
		list = append(list, origin{os.DirFS(dir), dir, dir})
	}
	return append(list, origin{builtin, "scenarios", ""})
}

// names returns the names of the origin's scenarios, sorted.
func (o origin) names() ([]string, error) {
	files, err := fs.Glob(o.fsys, "*/scenario.yaml")
	if err != nil {
		return nil, fmt.Errorf("list scenarios in %s: %w", o.prefix, err)
	}
	for i := range files {
		files[i] = path.Dir(files[i])
	}
	return files, nil
}

// Load returns the scenario of that name. It is looked for in the user's folders
// dirs, each holding folders of scenarios, then among the built-in ones. The error wraps
// fs.ErrNotExist if there is none, and names those there are.
func Load(name string, dirs ...string) (*Scenario, error) {
	var all []string
	for _, o := range origins(dirs) {
		names, err := o.names()
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, name) {
			return o.load(name)
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return nil, fmt.Errorf("no scenario is named %q: there are %s: %w", name, strings.Join(slices.Compact(all), ", "), fs.ErrNotExist)
}

// List returns all scenarios by name; one of dirs hides a built-in one of the
// same name. The scenarios that can be loaded are returned even with an error.
func List(dirs ...string) ([]*Scenario, error) {
	var list []*Scenario
	var errs []error
	seen := make(map[string]bool)
	for _, o := range origins(dirs) {
		names, err := o.names()
		errs = append(errs, err)
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			s, err := o.load(name)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *Scenario) int { return strings.Compare(a.Name, b.Name) })
	return list, errors.Join(errs...)
}

func (o origin) load(name string) (*Scenario, error) {
	file := path.Join(name, "scenario.yaml")
	data, err := fs.ReadFile(o.fsys, file)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	s, err := parse(filepath.Join(o.prefix, file), data)
	if err != nil {
		return nil, err
	}
	if s.Name != name {
		return nil, fmt.Errorf("%s: the name is %q but the folder's is %q", s.File, s.Name, name)
	}
	if o.dir != "" {
		s.Dir = filepath.Join(o.dir, name)
	}
	lesson, err := fs.ReadFile(o.fsys, path.Join(name, "LESSON.md"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read lesson: %w", err)
	}
	s.Lesson = string(lesson)
	return s, nil
}
