package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
)

// manager is a package manager: how to install without questions and without
// what is only recommended.
type manager struct {
	name    string
	update  []string // nil if install updates what it knows by itself
	lists   []string // glob patterns of what update leaves; none match if it never ran
	install []string // as one would type it
	options []string // added when we type it
	env     []string
}

// managers are tried in this order.
func managers() []manager {
	return []manager{
		{
			name:    "apt-get",
			update:  []string{"apt-get", "update"},
			lists:   []string{"/var/lib/apt/lists/*_Packages*"},
			install: []string{"apt-get", "install", "-y", "--no-install-recommends"},
			options: []string{"-q", "-o", "DPkg::Lock::Timeout=120", "-o", "APT::Update::Error-Mode=any"},
			env:     []string{"DEBIAN_FRONTEND=noninteractive"},
		},
		{name: "dnf", install: []string{"dnf", "install", "-y", "--setopt=install_weak_deps=False"}},
		{name: "zypper", install: []string{"zypper", "--non-interactive", "install", "--no-recommends"}},
		{name: "pacman", install: []string{"pacman", "-Sy", "--noconfirm", "--needed"}},
	}
}

// manager returns the host's package manager, or nil.
func (d *Doctor) manager() *manager {
	for _, m := range managers() {
		if _, err := d.lookPath(m.name); err == nil {
			return &m
		}
	}
	return nil
}

// install installs the packages of what is lacking.
func (d *Doctor) install(ctx context.Context, lacking []Check, say func(string)) error {
	m := d.manager()
	var packages []string
	for _, c := range lacking {
		if c.Package == "" {
			e := complain(lacking)
			if m == nil {
				e.WithHint("install what is missing: no package manager is known here")
			}
			return e
		}
		if !slices.Contains(packages, c.Package) {
			packages = append(packages, c.Package)
		}
	}
	update := m.update != nil && !d.hasLists(m)
	install := append(slices.Clone(m.install), packages...)

	prefix, ok := d.privilege(ctx)
	if d.getenv(EnvInstall) == "never" {
		ok = false
	}
	if !ok {
		return complain(lacking).WithHint("%s", byHand(m, install, d.root))
	}
	for _, c := range lacking {
		say("install " + c.Package + ": " + c.Why)
	}
	var uerr error
	if update {
		uerr = d.exec(ctx, m, prefix, m.update)
	}
	// The update may have failed for a source that is not needed.
	err := d.exec(ctx, m, prefix, install)
	if err != nil && !update && m.update != nil && ctx.Err() == nil {
		// What the lists name may be gone from the archive.
		if uerr = d.exec(ctx, m, prefix, m.update); uerr == nil {
			err = d.exec(ctx, m, prefix, install)
		}
	}
	if err != nil && uerr != nil {
		err = uerr // the first cause
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	e := blame.New(blame.Infrastructure, "install "+strings.Join(packages, " "), err)
	if x, ok := errors.AsType[*execx.Error](err); ok {
		lines := strings.Split(strings.TrimSpace(x.Tail), "\n")
		e.Look = lines[max(0, len(lines)-8):]
		e.Replay = execx.Quote(x.Argv)
	}
	return e.WithHint("%s", byHand(m, install, d.root))
}

// privilege returns what to put before a command that needs root, and whether
// such commands can be run at all.
func (d *Doctor) privilege(ctx context.Context) (prefix []string, ok bool) {
	if d.root {
		return nil, true
	}
	if _, err := d.lookPath("sudo"); err != nil {
		return nil, false
	}
	sudo := []string{"sudo", "-n"} // never asks
	_, err := d.run(ctx, execx.Cmd{Argv: append(slices.Clone(sudo), "true")})
	return sudo, err == nil
}

func (d *Doctor) hasLists(m *manager) bool {
	return slices.ContainsFunc(m.lists, func(pattern string) bool {
		found, err := d.glob(pattern)
		return err == nil && len(found) > 0
	})
}

func (d *Doctor) exec(ctx context.Context, m *manager, prefix, argv []string) error {
	if prefix != nil && m.env != nil {
		prefix = append(append(slices.Clone(prefix), "env"), m.env...) // sudo clears the environment
	}
	_, err := d.run(ctx, execx.Cmd{Argv: slices.Concat(prefix, argv, m.options), Env: m.env})
	return err
}

// byHand returns the one line to type.
func byHand(m *manager, install []string, root bool) string {
	sudo := "sudo "
	if root {
		sudo = ""
	}
	line := sudo + execx.Quote(install)
	if m.update != nil {
		line = sudo + execx.Quote(m.update) + " && " + line
	}
	return line
}
