package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crashlab/lab/blame"
)

// open returns a store in a temporary directory and what it logs.
func open(t *testing.T) (*Store, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s, err := Open(t.TempDir(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, &log
}

// kernel builds a small entry and counts how often it does.
func kernel(n *int) func(context.Context, string) error {
	return func(_ context.Context, dir string) error {
		*n++
		return errors.Join(
			os.MkdirAll(filepath.Join(dir, "boot"), 0o755),
			os.WriteFile(filepath.Join(dir, "boot/vmlinuz"), []byte("bzImage"), 0o644),
			os.WriteFile(filepath.Join(dir, "config"), []byte("CONFIG_X=y\n"), 0o644),
			os.Symlink("boot/vmlinuz", filepath.Join(dir, "link")))
	}
}

var key = Key{Kind: "kernel", Name: "debian-6.1", Inputs: []string{"a", "b"}}

func TestGetBuildsOnce(t *testing.T) {
	s, _ := open(t)
	var built int
	path, hit, err := s.Get(t.Context(), key, kernel(&built))
	if err != nil || hit {
		t.Fatalf("first Get = %v, %v; want a build", hit, err)
	}
	again, hit, err := s.Get(t.Context(), key, kernel(&built))
	if again != path || !hit || err != nil || built != 1 {
		t.Errorf("second Get = %q, %v, %v after %d builds; want %q, true, nil after 1", again, hit, err, built, path)
	}
	got, err := os.ReadFile(filepath.Join(path, "boot/vmlinuz"))
	if string(got) != "bzImage" {
		t.Errorf("boot/vmlinuz = %q, %v; want bzImage", got, err)
	}
}

func TestKeyID(t *testing.T) {
	base := Key{Kind: "k", Inputs: []string{"a", "b"}}
	for name, k := range map[string]Key{
		"other kind":   {Kind: "l", Inputs: []string{"a", "b"}},
		"joined":       {Kind: "k", Inputs: []string{"ab"}},
		"shifted":      {Kind: "k", Inputs: []string{"", "ab"}},
		"longer":       {Kind: "k", Inputs: []string{"a", "b", ""}},
		"kind glued":   {Kind: "ka", Inputs: []string{"b"}},
		"other order":  {Kind: "k", Inputs: []string{"b", "a"}},
		"no inputs":    {Kind: "k"},
		"another case": {Kind: "k", Inputs: []string{"A", "b"}},
	} {
		if k.ID() == base.ID() {
			t.Errorf("%s: ID = %s, that of another key", name, k.ID())
		}
	}
	named := base
	named.Name = "../debian 6.1/x"
	if got, want := named.ID(), "-debian-6.1-x-"+base.ID(); got != want {
		t.Errorf("ID() = %q; want %q", got, want)
	}
}

// A changed entry is noticed, said in one line, and made again.
func TestDamage(t *testing.T) {
	tests := []struct {
		name   string
		damage func(entry string) error
		want   string // what the log says; empty means that it is no damage
	}{
		{"flipped byte", func(e string) error {
			return os.WriteFile(filepath.Join(e, "files/boot/vmlinuz"), []byte("bzImagE"), 0o644)
		}, "boot/vmlinuz: its content has changed"},
		{"cut short", func(e string) error { return os.Truncate(filepath.Join(e, "files/config"), 3) },
			"config: has 3 bytes instead of 11"},
		{"removed", func(e string) error { return os.Remove(filepath.Join(e, "files/config")) },
			"config: no such file"},
		{"file became directory", func(e string) error {
			p := filepath.Join(e, "files/config")
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o755))
		}, "config: has become d"},
		{"link turned", func(e string) error {
			p := filepath.Join(e, "files/link")
			return errors.Join(os.Remove(p), os.Symlink("boot/passwdx", p))
		}, "link: its content has changed"},
		{"manifest removed", func(e string) error { return os.Remove(filepath.Join(e, "manifest")) }, "manifest: no such file"},
		{"manifest empty", func(e string) error { return os.Truncate(filepath.Join(e, "manifest"), 0) }, "not a manifest"},
		{"manifest cut", func(e string) error { return os.Truncate(filepath.Join(e, "manifest"), 60) }, "cut short"},
		{"manifest changed", func(e string) error {
			p := filepath.Join(e, "manifest")
			b, err := os.ReadFile(p)
			return errors.Join(err, os.WriteFile(p, bytes.Replace(b, []byte(" 11 "), []byte(" 12 "), 1), 0o644))
		}, "cut short or changed"},
		{"only copied", func(e string) error {
			now := time.Now().Add(time.Hour)
			return os.Chtimes(filepath.Join(e, "files/config"), now, now)
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, log := open(t)
			var built int
			path, _, err := s.Get(t.Context(), key, kernel(&built))
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
			_, hit, err := s.Get(t.Context(), key, kernel(&built))
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if !hit || built != 1 {
					t.Errorf("Get = hit %v after %d builds; want a hit: nothing is damaged", hit, built)
				}
				return
			}
			if hit || built != 2 {
				t.Errorf("Get = hit %v after %d builds; want it made again", hit, built)
			}
			if got := log.String(); !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("log = %q; want one line with %q", got, tt.want)
			}
			if _, hit, err := s.Get(t.Context(), key, kernel(&built)); !hit || err != nil {
				t.Errorf("Get after the repair = %v, %v; want a hit", hit, err)
			}
			if got, _ := os.ReadFile(filepath.Join(path, "boot/vmlinuz")); string(got) != "bzImage" {
				t.Errorf("repaired boot/vmlinuz = %q; want bzImage", got)
			}
		})
	}
}

// listing returns the names below entry/, without the random part of scratch
// directories.
func listing(t *testing.T, s *Store) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, "entry", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return names
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	s, _ := open(t)
	boom := errors.New("boom")
	_, _, err := s.Get(t.Context(), key, func(_ context.Context, dir string) error {
		_ = os.WriteFile(filepath.Join(dir, "half"), []byte("ha"), 0o644)
		return boom
	})
	if err != boom {
		t.Errorf("Get = %v; want the error of build as it is", err)
	}
	if got := listing(t, s); got != nil {
		t.Errorf("left behind: %v", got)
	}
	var built int
	if _, hit, err := s.Get(t.Context(), key, kernel(&built)); hit || err != nil {
		t.Errorf("Get after a failure = %v, %v; want a build", hit, err)
	}
}

func TestDiskFull(t *testing.T) {
	s, _ := open(t)
	_, _, err := s.Get(t.Context(), key, func(_ context.Context, dir string) error {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer full.Close()
		_, err = full.Write([]byte("x"))
		return fmt.Errorf("unpack vmlinuz: %w", err)
	})
	b := blame.Of(err)
	if !errors.Is(err, syscall.ENOSPC) || b.Party != blame.Infrastructure || !strings.Contains(b.Hint, EnvDir) {
		t.Errorf("Get = %v (%v, hint %q); want a full disk, infrastructure, and a hint that names %s", err, b.Party, b.Hint, EnvDir)
	}
	if got := listing(t, s); got != nil {
		t.Errorf("left behind: %v", got)
	}
}

func TestCancelWhileBuilding(t *testing.T) {
	s, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := s.Get(ctx, key, func(ctx context.Context, dir string) error {
		_ = os.WriteFile(filepath.Join(dir, "half"), []byte("ha"), 0o644)
		cancel()
		return nil // a build that does not notice
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Get = %v; want context.Canceled", err)
	}
	if got := listing(t, s); got != nil {
		t.Errorf("left behind: %v", got)
	}
}

// What a killed build left is not used, and is gone after the next build.
func TestKilledBuildIsSwept(t *testing.T) {
	s, _ := open(t)
	other := Key{Kind: key.Kind, Name: "other"}
	for _, id := range []string{key.ID(), other.ID()} {
		left := filepath.Join(s.dir, "entry", key.Kind, id+tmpMark+"123", "files")
		if err := os.MkdirAll(left, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(left, "half"), []byte("ha"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var built int
	if _, hit, err := s.Get(t.Context(), key, kernel(&built)); hit || err != nil {
		t.Fatalf("Get = %v, %v; want a build", hit, err)
	}
	if diff := cmp.Diff([]string{key.ID()}, listing(t, s)); diff != "" {
		t.Errorf("entries after the build (-want +got):\n%s", diff)
	}
}

// The scratch directory of a build that is under way is not swept.
func TestRunningBuildIsNotSwept(t *testing.T) {
	s, _ := open(t)
	other := Key{Kind: key.Kind, Name: "other"}
	_, _, err := s.Get(t.Context(), other, func(ctx context.Context, dir string) error {
		var n int
		if _, _, err := s.Get(ctx, key, kernel(&n)); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "x"), nil, 0o644)
	})
	if err != nil {
		t.Errorf("Get of an entry during whose build another was made = %v; want nil", err)
	}
}

func TestTwoAtOnce(t *testing.T) {
	s, _ := open(t)
	var built atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			// Each its own Store, as in two processes.
			s, err := Open(s.dir, nil)
			if err != nil {
				t.Error(err)
				return
			}
			path, _, err := s.Get(t.Context(), key, func(_ context.Context, dir string) error {
				built.Add(1)
				time.Sleep(50 * time.Millisecond)
				return os.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o644)
			})
			if err != nil {
				t.Errorf("Get = %v", err)
				return
			}
			if got, err := os.ReadFile(filepath.Join(path, "x")); string(got) != "x" {
				t.Errorf("x = %q, %v; want x", got, err)
			}
		})
	}
	wg.Wait()
	if built.Load() != 1 {
		t.Errorf("%d builds; want 1", built.Load())
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	s, _ := open(t)
	_, _, err := s.Get(t.Context(), key, func(ctx context.Context, dir string) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		defer cancel()
		var n int
		_, _, err := s.Get(ctx, key, kernel(&n)) // the key that we are building
		if !errors.Is(err, context.DeadlineExceeded) || n != 0 {
			t.Errorf("Get of a locked key = %v after %d builds; want context.DeadlineExceeded after 0", err, n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A process that is killed in the middle of a build holds nobody up.
func TestKilledProcess(t *testing.T) {
	if dir := os.Getenv("STORE_TEST_HANG"); dir != "" {
		s, err := Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.Get(t.Context(), key, func(ctx context.Context, dir string) error {
			_ = os.WriteFile(filepath.Join(dir, "half"), []byte("ha"), 0o644)
			fmt.Println("building")
			<-ctx.Done()
			return ctx.Err()
		})
		t.Fatal(err)
	}
	s, _ := open(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledProcess$")
	cmd.Env = append(os.Environ(), "STORE_TEST_HANG="+s.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := listing(t, s); len(got) != 1 || !strings.Contains(got[0], tmpMark) {
		t.Fatalf("the killed process left %v; want one scratch directory", got)
	}
	var built int
	if _, hit, err := s.Get(t.Context(), key, kernel(&built)); hit || err != nil || built != 1 {
		t.Errorf("Get = %v, %v; want a build", hit, err)
	}
	if diff := cmp.Diff([]string{key.ID()}, listing(t, s)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestClear(t *testing.T) {
	s, _ := open(t)
	var n int
	if _, _, err := s.Get(t.Context(), key, kernel(&n)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.Area("apt"), 0o755); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(s.Dir(), "foreign")
	if err := os.WriteFile(foreign, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Clear(t.Context()); got != 1 || err != nil {
		t.Errorf("Clear() = %d, %v; want 1, nil", got, err)
	}
	if got := listing(t, s); got != nil {
		t.Errorf("left: %v", got)
	}
	if _, err := os.Stat(s.Area("apt")); err == nil {
		t.Errorf("left: %s", s.Area("apt"))
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("a file that is not the store's: %v", err)
	}
}

func TestOpenUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Open(filepath.Join(file, "cache"), nil)
	if blame.Of(err).Party != blame.Infrastructure || err == nil {
		t.Errorf("Open below a file = %v; want an infrastructure error", err)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifestHead))
	f.Add([]byte(manifestHead + "f 1 2 ab x\nsum 00\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		recs, err := parseManifest(text)
		if err != nil && recs != nil {
			t.Errorf("parseManifest = %v, %v; want nothing with an error", recs, err)
		}
	})
}

func BenchmarkHit(b *testing.B) {
	s, err := Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	make10k := func(_ context.Context, dir string) error {
		for i := range 10_000 {
			d := filepath.Join(dir, fmt.Sprintf("include/linux/%02d", i%100))
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("header%d.h", i)), []byte("x"), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	if _, _, err := s.Get(b.Context(), key, make10k); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, hit, err := s.Get(b.Context(), key, make10k); !hit {
			b.Fatal(err)
		}
	}
}
