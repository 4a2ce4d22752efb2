package kernels

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"crashlab/lab/blame"
)

// Suites are the suites of Debian that List asks for; "" is the host's own.
func Suites() []string {
	return []string{"", "bullseye", "bookworm", "trixie", "trixie-backports", "forky", "sid", "experimental"}
}

// Listed is a kernel that can be had.
type Listed struct {
	Suite  string // "": of the host
	Plan   *Plan  // Spec names exactly this one
	Cached bool   // it is in the store

	// Flavour is the variant: cloud-amd64, rt-amd64 or amd64.
	Flavour string
}

// List returns the kernels of a suite of Debian, the newest first, of all
// flavours. Nothing is fetched but the suite's package lists, into the cache.
func (s *Sources) List(ctx context.Context, suite string) ([]Listed, error) {
	d, ok := s.providers["debian"].(*debian)
	if !ok {
		return nil, errors.New("kernels: there is no provider debian")
	}
	spec := "debian"
	if suite != "" {
		spec += "@" + suite
	}
	a, err := d.apt(ctx, spec, false)
	if err != nil {
		return nil, err
	}
	av, err := a.available(ctx)
	if err != nil {
		return nil, err
	}
	var all []Listed
	for _, fl := range av.of.flavours {
		for _, abi := range av.abis(fl) {
			p, err := av.plan(abi, fl)
			if err != nil {
				continue // it has no headers: no spec can name it
			}
			p.Spec = spec + ":" + abi
			if fl != av.of.flavours[0] {
				p.Spec += "-" + fl
			}
			_, err = os.Stat(s.store.Path(planKey(p)))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, blame.New(blame.Infrastructure, "look into the cache", err)
			}
			all = append(all, Listed{Suite: suite, Plan: p, Cached: err == nil, Flavour: fl})
		}
	}
	slices.SortStableFunc(all, func(a, b Listed) int { return compareVersions(b.Plan.Version, a.Plan.Version) })
	return all, nil
}
