package scenarios

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"crashlab/crashkit/check"
	"crashlab/crashkit/facts"
)

// file is a scenario.yaml.
type file struct {
	Name     string            `yaml:"name"`
	Title    string            `yaml:"title"`
	Summary  string            `yaml:"summary"`
	Kernel   string            `yaml:"kernel"`
	Module   string            `yaml:"module"`
	Trigger  Trigger           `yaml:"trigger"`
	Sysctl   map[string]string `yaml:"sysctl"`
	Guest    Guest             `yaml:"guest"`
	Timeouts Timeouts          `yaml:"timeouts"`
	Expect   []struct {
		Name string    `yaml:"name"`
		Expr yaml.Node `yaml:"expr"` // a node, for its place
	} `yaml:"expect"`
}

// defaultGuest is the machine of a scenario that says nothing about it.
var defaultGuest = Guest{MemoryMiB: 512, CPUs: 1, Crashkernel: "128M"}

// maxFile bounds a scenario.yaml, in bytes.
const maxFile = 1 << 20

var (
	namePattern   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
	modulePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,54}$`) // MODULE_NAME_LEN
	sysctlPattern = regexp.MustCompile(`^[a-z]+(\.[a-z0-9_-]+)+$`)
	crashkernel   = regexp.MustCompile(`^\d+[KMG]$`)
)

// parse decodes and checks a scenario. name is the file's, for messages.
func parse(name string, data []byte) (*Scenario, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: %d bytes are too many for a scenario", name, len(data))
	}
	f := file{Guest: defaultGuest}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document", name)
	}
	if errs := f.check(); len(errs) > 0 {
		for i := range errs {
			errs[i] = fmt.Errorf("%s: %w", name, errs[i])
		}
		return nil, errors.Join(errs...)
	}
	suite, err := check.Compile(f.expectations(name, data), reflect.TypeFor[facts.Facts]())
	if err != nil {
		return nil, err
	}
	return &Scenario{
		Name: f.Name, Title: f.Title, Summary: strings.TrimSpace(f.Summary),
		Kernel: f.Kernel, Module: f.Module, Trigger: f.Trigger,
		Sysctl: f.Sysctl, Guest: f.Guest, Timeouts: f.Timeouts,
		Expect: suite, File: name,
	}, nil
}

// check returns everything that is wrong with the fields but the expressions.
func (f *file) check() []error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !namePattern.MatchString(f.Name) {
		wrong("name is %q, not lower-case letters, digits, - and _", f.Name)
	}
	if f.Title == "" || strings.Contains(f.Title, "\n") {
		wrong("title is not one line")
	}
	if f.Kernel == "" {
		wrong("kernel is not given")
	}
	switch f.Trigger {
	case TriggerModule:
		if !modulePattern.MatchString(f.Module) {
			wrong("module is %q, not the name of a module", f.Module)
		}
	case TriggerSysRq, TriggerNMI:
		if f.Module != "" {
			wrong("trigger %s takes no module", f.Trigger)
		}
	default:
		wrong("trigger is %q, not %q, %q or %q", f.Trigger, TriggerModule, TriggerSysRq, TriggerNMI)
	}
	for name := range f.Sysctl {
		if !sysctlPattern.MatchString(name) {
			wrong("sysctl %q is no name such as kernel.panic_on_warn", name)
		}
	}
	if g := f.Guest; g.MemoryMiB < 256 || g.MemoryMiB > 1<<20 {
		wrong("guest.memory_mib is %d, not from 256 to %d", g.MemoryMiB, 1<<20)
	}
	if g := f.Guest; g.CPUs < 1 || g.CPUs > 255 {
		wrong("guest.cpus is %d, not from 1 to 255", g.CPUs)
	}
	if !crashkernel.MatchString(f.Guest.Crashkernel) {
		wrong("guest.crashkernel is %q, not a size such as 128M", f.Guest.Crashkernel)
	}
	if strings.ContainsAny(f.Guest.Cmdline, "\n\x00") {
		wrong("guest.cmdline is not one line")
	}
	t := f.Timeouts
	for _, d := range []struct {
		name string
		ok   bool
	}{{"boot", t.Boot >= 0}, {"arm", t.Arm >= 0}, {"trigger", t.Trigger >= 0}, {"capture", t.Capture >= 0}, {"copy", t.Copy >= 0}} {
		if !d.ok {
			wrong("timeouts.%s is negative", d.name)
		}
	}
	if len(f.Expect) == 0 {
		wrong("expect is empty: a scenario that expects nothing always passes")
	}
	seen := make(map[string]bool)
	for i, e := range f.Expect {
		switch {
		case e.Name == "":
			wrong("expect[%d] has no name", i)
		case seen[e.Name]:
			wrong("expect has the name %q twice", e.Name)
		case e.Expr.Kind != yaml.ScalarNode:
			wrong("line %d: expectation %q has no expr, or it is not a string", e.Expr.Line, e.Name)
		}
		seen[e.Name] = true
	}
	return errs
}

// expectations returns the expressions with their places in the file.
func (f *file) expectations(name string, data []byte) []check.Expectation {
	lines := strings.Split(string(data), "\n")
	var list []check.Expectation
	for _, e := range f.Expect {
		x := check.Expectation{Name: e.Name, Expr: e.Expr.Value, File: name, Line: e.Expr.Line, Col: e.Expr.Column}
		switch e.Expr.Style &^ yaml.TaggedStyle {
		case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
			x.Col++
		case yaml.LiteralStyle, yaml.FoldedStyle:
			// The text begins on the next line; its first line that is not
			// empty gives the indentation.
			x.Line, x.Col = x.Line+1, 1
			for _, text := range lines[min(x.Line-1, len(lines)):] {
				if strings.TrimSpace(text) != "" {
					x.Col += len(text) - len(strings.TrimLeft(text, " "))
					break
				}
			}
		}
		list = append(list, x)
	}
	return list
}
