package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Entries are listed with their sizes and the time of their last use, and can be
// removed, unless they are being made.
func TestEntries(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	get := func(name string) {
		t.Helper()
		_, _, err := s.Get(t.Context(), Key{Kind: "kernel", Name: name, Inputs: []string{name}}, func(_ context.Context, dir string) error {
			return os.WriteFile(filepath.Join(dir, "vmlinuz"), []byte(strings.Repeat("x", 1000)), 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	entries := func() map[string]Entry {
		t.Helper()
		all, err := s.Entries()
		if err != nil {
			t.Fatal(err)
		}
		m := make(map[string]Entry)
		for _, e := range all {
			m[strings.SplitN(e.ID, "-", 2)[0]] = e
		}
		return m
	}
	get("old")
	get("new")
	old := entries()["old"]
	if old.Kind != "kernel" || old.Size != 1000 || old.Dead || time.Since(old.Used) > time.Minute {
		t.Errorf("Entries has %+v; want a kernel of 1000 bytes, used now", old)
	}
	manifest := filepath.Join(s.Dir(), "entry/kernel", old.ID, "manifest")
	year := time.Now().AddDate(-1, 0, 0)
	if err := os.Chtimes(manifest, year, year); err != nil {
		t.Fatal(err)
	}
	if got := entries()["old"].Used; !got.Equal(year.Truncate(time.Nanosecond)) {
		t.Errorf("last use of what was not used for a year: %v", got)
	}
	get("old")
	if got := entries()["old"].Used; time.Since(got) > time.Minute {
		t.Errorf("last use after Get: %v; want now", got)
	}
	if err := os.Truncate(manifest, 10); err != nil {
		t.Fatal(err)
	}
	if e := entries()["old"]; !e.Dead {
		t.Errorf("a damaged entry: %+v; want it dead", e)
	}
	if err := s.Remove(t.Context(), old); err != nil {
		t.Error(err)
	}
	if got := entries(); len(got) != 1 || got["new"].ID == "" {
		t.Errorf("Entries after Remove = %v; want new alone", got)
	}
	_, _, err = s.Get(t.Context(), Key{Kind: "kernel", Name: "making"}, func(ctx context.Context, _ string) error {
		e := entries()["making"]
		if err := s.Remove(ctx, e); !errors.Is(err, ErrInUse) || !e.Dead {
			t.Errorf("Remove of what is being made, %+v: %v; want ErrInUse", e, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
