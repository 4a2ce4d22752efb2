package kbuild

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crashlab/internal/execx"
	"crashlab/kconfig"
	"crashlab/lab/blame"
)

// Menu configures w, lets the user change that by a target of the kernel's
// Makefile such as "menuconfig" or "nconfig", in the terminal, and returns what
// was changed as a fragment called name: the options that a user can set, not
// those that follow from them. It is nil if nothing was changed. The fragment
// added to w gives the same configuration; if not, the error says so.
func (b *Builder) Menu(ctx context.Context, src Source, w *Want, target, name string) (*kconfig.Fragment, error) {
	o, err := b.open(ctx, src, w)
	if err != nil {
		return nil, err
	}
	defer o.unlock()
	before, err := o.configure(ctx)
	if err != nil {
		return nil, err
	}
	doing := "change the configuration by " + target
	argv := o.argv(target)
	if _, err := execx.Run(ctx, execx.Cmd{Argv: argv, Env: o.environment(), Terminal: true}); err != nil {
		e := blame.New(blame.Kernel, doing, err)
		e.Replay = execx.Quote(argv)
		return nil, e
	}
	after, err := kconfig.ReadFile(filepath.Join(o.dir, ".config"))
	if err != nil {
		return nil, blame.New(blame.Kernel, doing, err)
	}
	tree, err := ParseKconfig(src, w.Built())
	if err != nil {
		return nil, blame.New(blame.Kernel, doing, err)
	}
	f := &kconfig.Fragment{Name: name, Title: "Changed by " + target + " on " + src.Version + w.Suffix + ", " + time.Now().Format(time.DateOnly) + "."}
	for _, c := range kconfig.Diff(before.Config, after) {
		s := tree.Symbol(c.Name)
		if s == nil || !s.Settable(after) {
			continue
		}
		f.Lines = append(f.Lines, kconfig.FragmentLine{Setting: kconfig.Setting{Name: c.Name, Value: c.To}, Why: "was " + c.From + ": " + s.Title()})
	}
	if len(f.Lines) == 0 {
		return nil, nil
	}
	return f, o.proves(ctx, f, after)
}

// proves configures with f added and compares the outcome with want.
func (o *object) proves(ctx context.Context, f *kconfig.Fragment, want *kconfig.Config) error {
	with := *o.want
	with.Fragments = append(append([]*kconfig.Fragment{}, o.want.Fragments...), f)
	for _, g := range o.want.Fragments {
		with.Overridable = append(with.Overridable, g.Name) // the user has just done so
	}
	p := &object{o.Builder, o.src, &with, o.dir, nil}
	got, err := p.configure(ctx)
	if err != nil {
		return err
	}
	if d := kconfig.Diff(want, got.Config); len(d) > 0 {
		e := blame.New(blame.Kernel, "save the changes as a fragment", errors.New("it does not give the same configuration"))
		for _, c := range d[:min(len(d), 10)] {
			e.Look = append(e.Look, c.String())
		}
		return e
	}
	return nil
}

// Make runs make with any targets on the configured kernel, in the terminal.
func (b *Builder) Make(ctx context.Context, src Source, w *Want, targets string) error {
	o, err := b.open(ctx, src, w)
	if err != nil {
		return err
	}
	defer o.unlock()
	if _, err := os.Stat(filepath.Join(o.dir, ".config")); err != nil {
		if _, err := o.configure(ctx); err != nil {
			return err
		}
	}
	argv := o.argv(strings.Fields(targets)...)
	if _, err := execx.Run(ctx, execx.Cmd{Argv: argv, Env: o.environment(), Terminal: true}); err != nil {
		e := blame.New(blame.Kernel, "make "+targets, err)
		e.Replay = execx.Quote(argv)
		return e
	}
	return nil
}
