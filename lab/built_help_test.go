//go:build lab && built

package lab

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"crashlab/lab/kbuild"
)

// contextAfter returns a context that ends when b has said n times what it
// compiles.
func contextAfter(t *testing.T, b *kbuild.Builder, n int64) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	var said atomic.Int64
	b.Progress = func(doing string) {
		if strings.Contains(doing, " files, ") && said.Add(1) >= n {
			cancel()
		}
	}
	return ctx, cancel
}

func fileSum(t *testing.T, name string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func mkdir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
