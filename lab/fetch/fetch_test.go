package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// content is a file of 1 MB.
func content() []byte {
	b := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// server has the file, and behaves as the test says.
type server struct {
	body     []byte
	etag     string
	noRanges bool
	breakAt  []int // where the first answers break off, counted from their beginning
	stall    bool  // rather than to break off
	status   int   // if not 0

	requests atomic.Int32
	ranges   []string
	last     time.Time
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := int(s.requests.Add(1)) - 1
	s.ranges = append(s.ranges, r.Header.Get("Range"))
	if s.status != 0 {
		w.WriteHeader(s.status)
		return
	}
	if s.etag != "" {
		w.Header().Set("ETag", s.etag)
	}
	out := w
	if n < len(s.breakAt) {
		out = &breaking{w, s.breakAt[n], s.stall, r.Context()}
	}
	if s.noRanges {
		w.Header().Set("Content-Length", fmt.Sprint(len(s.body)))
		_, _ = out.Write(s.body)
		return
	}
	http.ServeContent(out, r, "", s.last, bytes.NewReader(s.body))
}

// breaking breaks the connection after left bytes.
type breaking struct {
	http.ResponseWriter
	left  int
	stall bool
	ctx   context.Context
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) > b.left {
		_, _ = b.ResponseWriter.Write(p[:b.left])
		b.ResponseWriter.(http.Flusher).Flush()
		if b.stall {
			<-b.ctx.Done()
		}
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

func start(t *testing.T, s *server) string {
	t.Helper()
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return h.URL + "/linux.tar.xz"
}

func TestFile(t *testing.T) {
	body := content()
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name     string
		server   *server
		requests int
		ranges   string // of the last request
	}{
		{"whole", &server{body: body, etag: `"a"`}, 1, ""},
		{"breaks off and goes on", &server{body: body, etag: `"a"`, breakAt: []int{400_000}}, 2, "bytes=400000-"},
		{"breaks off often", &server{body: body, etag: `"a"`, breakAt: []int{100_000, 100_000, 100_000, 100_000, 100_000}}, 6, "bytes=500000-"},
		{"identified by time", &server{body: body, last: date, breakAt: []int{400_000}}, 2, "bytes=400000-"},
		{"not identified", &server{body: body, breakAt: []int{400_000}}, 2, ""},
		{"weak tag", &server{body: body, etag: `W/"a"`, breakAt: []int{400_000}}, 2, ""},
		{"knows no ranges", &server{body: body, etag: `"a"`, noRanges: true, breakAt: []int{400_000}}, 2, "bytes=400000-"},
		{"stalls", &server{body: body, etag: `"a"`, stall: true, breakAt: []int{400_000}}, 2, "bytes=400000-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "dir", "file")
			var done, total int64
			c := &Client{Stall: 200 * time.Millisecond, Progress: func(_ string, d, all int64) { done, total = d, all }}
			if err := c.File(t.Context(), []string{start(t, tt.server)}, name); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, body) {
				t.Errorf("the file has %d bytes, %v; want those of the server", len(got), err)
			}
			if n := int(tt.server.requests.Load()); n != tt.requests || tt.server.ranges[n-1] != tt.ranges {
				t.Errorf("%d requests, the last for %q; want %d, %q", n, tt.server.ranges[n-1], tt.requests, tt.ranges)
			}
			if done != int64(len(body)) || total != done {
				t.Errorf("progress ended with %d of %d; want %d of it", done, total, len(body))
			}
			if left, err := filepath.Glob(name + ".part*"); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// What an interrupted call received is not requested again by the next one.
func TestFileInterrupted(t *testing.T) {
	body := content()
	s := &server{body: body, etag: `"a"`, breakAt: []int{400_000}, stall: true}
	name := filepath.Join(t.TempDir(), "file")
	ctx, cancel := context.WithCancel(t.Context())
	c := &Client{Progress: func(_ string, done, _ int64) {
		if done == 400_000 {
			cancel()
		}
	}}
	u := start(t, s)
	if err := c.File(ctx, []string{u}, name); !errors.Is(err, context.Canceled) {
		t.Fatalf("File = %v; want context.Canceled", err)
	}
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file after the interruption: %v", err)
	}
	if err := new(Client).File(t.Context(), []string{u}, name); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, body) || s.ranges[1] != "bytes=400000-" {
		t.Errorf("the file has %d bytes, %v; second request for %q", len(got), err, s.ranges[1])
	}
}

// The file has changed on the server between two calls: it is downloaded from its beginning.
func TestFileChanged(t *testing.T) {
	body := content()
	s := &server{body: bytes.Repeat([]byte("old"), 300_000), etag: `"old"`, breakAt: []int{400_000, 0, 0, 0, 0}}
	name := filepath.Join(t.TempDir(), "file")
	u := start(t, s)
	if err := (&Client{Tries: 1}).File(t.Context(), []string{u}, name); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Fatalf("File = %v; want that it broke off", err)
	}
	s.body, s.etag, s.breakAt = body, `"new"`, nil
	if err := new(Client).File(t.Context(), []string{u}, name); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, body) {
		t.Errorf("the file has %d bytes, %v; want those of the new file", len(got), err)
	}
}

// Another mirror goes on where the first one left off, if its file has the same time.
func TestFileMirrors(t *testing.T) {
	body := content()
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	missing := &server{status: 404}
	broken := &server{body: body, last: date, breakAt: []int{300_000, 0, 0, 0, 0, 0, 0}}
	good := &server{body: body, last: date}
	name := filepath.Join(t.TempDir(), "file")
	closed := httptest.NewServer(missing)
	closed.Close()
	urls := []string{closed.URL, start(t, missing), start(t, broken), start(t, good)}
	if err := new(Client).File(t.Context(), urls, name); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, body) {
		t.Errorf("the file has %d bytes, %v; want those of the server", len(got), err)
	}
	if got := good.ranges[0]; got != "bytes=300000-" {
		t.Errorf("the last mirror was asked for %q; want what follows 300000 bytes", got)
	}
}

// Of two calls for the same file, one downloads and the other waits.
func TestFileTwice(t *testing.T) {
	body := content()
	s := &server{body: body, etag: `"a"`}
	u, name := start(t, s), filepath.Join(t.TempDir(), "file")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := new(Client).File(t.Context(), []string{u}, name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, body) || s.requests.Load() != 1 {
		t.Errorf("the file has %d bytes, %v, after %d requests; want %d after one", len(got), err, s.requests.Load(), len(body))
	}
}

func TestFileSaysWhy(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	urls := []string{start(t, &server{status: 404}), start(t, &server{status: 503}), "http://127.0.0.1:1/x", "nonsense://x"}
	err := new(Client).File(t.Context(), urls, name)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("File = %v; want one that is ErrNotFound", err)
	}
	for _, want := range []string{"404", "503", "refused", "unsupported protocol"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("File = %v; want %q in it", err, want)
		}
	}
}

func TestBytes(t *testing.T) {
	body := content()[:1000]
	c := new(Client)
	urls := []string{start(t, &server{status: 500}), start(t, &server{body: body})}
	if got, err := c.Bytes(t.Context(), urls, 1000); err != nil || !bytes.Equal(got, body) {
		t.Errorf("Bytes = %d bytes, %v; want those of the server", len(got), err)
	}
	if got, err := c.Bytes(t.Context(), urls, 999); err == nil {
		t.Errorf("Bytes with too small a limit = %d bytes; want an error", len(got))
	}
}
