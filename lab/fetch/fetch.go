// Package fetch downloads files over HTTP: from the first of several places that
// has them, and from where an earlier attempt stopped.
package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Client downloads files. The zero value is useful.
type Client struct {
	HTTP     *http.Client                        // nil: one that gives up connecting after 10 s
	Progress func(url string, done, total int64) // in bytes; total is 0 while unknown; may be nil
	Stall    time.Duration                       // give up a place that sends nothing for so long; 0: 30 s
	Tries    int                                 // how often a place may break off before the next is tried; 0: 3
}

// ErrNotFound is wrapped by errors of places that answer, but do not have the file.
var ErrNotFound = errors.New("not there")

// state is what is known about the beginning of a file that was downloaded.
type state struct {
	Validator string // an ETag or the time of the last change, for If-Range; empty: not to be continued
}

// File downloads the same file from the first of urls that has it to the file called name,
// unless that exists. What was received of it is kept in name.part, also when
// ctx ends, and the next call goes on there if the server says that its file is
// the same. The error has the reasons of all places. Of two calls for the same
// name, in this process or another, one waits; name.lock stays behind.
func (c *Client) File(ctx context.Context, urls []string, name string) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	lock := flock.New(name + ".lock")
	defer lock.Close()
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return err
	}
	if _, err := os.Stat(name); err == nil { // while we waited
		return nil
	}
	part, err := os.OpenFile(name+".part", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer part.Close()
	var errs []error
	for _, u := range urls {
		err := c.place(ctx, u, part)
		if err == nil {
			return errors.Join(part.Close(), os.Rename(part.Name(), name), c.forget(part.Name()))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, err)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
	}
	return errors.Join(errs...)
}

// Bytes returns what the first of urls that has it sends, at most limit bytes.
func (c *Client) Bytes(ctx context.Context, urls []string, limit int64) ([]byte, error) {
	var errs []error
	for _, u := range urls {
		b, err := c.bytes(ctx, u, limit)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (c *Client) bytes(ctx context.Context, u string, limit int64) ([]byte, error) {
	resp, stop, err := c.get(ctx, u, nil)
	if err != nil {
		return nil, err
	}
	defer stop()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	return b, nil
}

// place downloads the rest of u to part, and goes on when the server breaks off.
func (c *Client) place(ctx context.Context, u string, part *os.File) error {
	tries := c.Tries
	if tries == 0 {
		tries = 3
	}
	for left := tries; ; left-- {
		before, err := part.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		err = c.attempt(ctx, u, part)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrNotFound) || errors.Is(err, syscall.ENOSPC) || left <= 1 {
			return err
		}
		if after, serr := part.Seek(0, io.SeekEnd); serr == nil && after > before {
			left = tries + 1 // it broke off, but it goes on
		} else if !errors.Is(err, errBroken) {
			return err // not even an answer
		}
	}
}

// errBroken marks a transfer that began and ended too early.
var errBroken = errors.New("broke off")

// attempt makes one request and appends what it brings to part.
func (c *Client) attempt(ctx context.Context, u string, part *os.File) error {
	have, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	header := make(http.Header)
	if known := c.recall(part.Name()); have > 0 && known.Validator != "" {
		header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		header.Set("If-Range", known.Validator)
	}
	resp, stop, err := c.get(ctx, u, header)
	if errors.Is(err, errRange) { // what is there is longer than the server's file, or all of it
		if err := part.Truncate(0); err != nil {
			return err
		}
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	if err != nil {
		return err
	}
	defer stop()
	total := int64(0)
	switch resp.StatusCode {
	case http.StatusPartialContent:
		from, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || from != have {
			return fmt.Errorf("%s: the server sends %q instead of what follows %d bytes", u, resp.Header.Get("Content-Range"), have)
		}
		total = size
	default:
		// The server knows no ranges, or its file is another one.
		have = 0
		total = max(0, resp.ContentLength)
		if err := part.Truncate(0); err != nil {
			return err
		}
		if err := c.remember(part.Name(), state{validator(resp.Header)}); err != nil {
			return err
		}
	}
	if free, err := free(filepath.Dir(part.Name())); err == nil && total-have > free {
		return fmt.Errorf("%s: %d MB are missing on the disk of %s: %w", u, (total-have-free)>>20+1, part.Name(), syscall.ENOSPC)
	}
	if _, err := part.Seek(have, io.SeekStart); err != nil {
		return err
	}
	n, err := io.Copy(&counter{part, func(n int64) {
		have += n
		if c.Progress != nil {
			c.Progress(u, have, total)
		}
	}}, resp.Body)
	if err == nil && total > 0 && have != total {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: %w after %d bytes: %w", u, errBroken, n, err)
	}
	return part.Sync()
}

// errRange is the answer to a request for what lies behind the end.
var errRange = errors.New("the range is not there")

// get makes a request, whose answer has the status 200 or 206. Reading its body
// fails when nothing comes for too long. Call stop when done.
func (c *Client) get(ctx context.Context, u string, header http.Header) (resp *http.Response, stop func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stall := c.Stall
	if stall == 0 {
		stall = 30 * time.Second
	}
	timer := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing came for %v", stall)) })
	stop = func() {
		timer.Stop()
		cancel(nil)
		if resp != nil {
			resp.Body.Close()
		}
	}
	fail := func(err error) (*http.Response, func(), error) {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		stop()
		return nil, nil, fmt.Errorf("%s: %w", u, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return fail(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Accept-Encoding", "identity") // the bytes as they are, or sizes mean nothing
	client := c.HTTP
	if client == nil {
		client = defaultClient()
	}
	resp, err = client.Do(req)
	if err != nil {
		return fail(bare(err))
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusNotFound, http.StatusGone:
		return fail(fmt.Errorf("%w (%s)", ErrNotFound, resp.Status))
	case http.StatusRequestedRangeNotSatisfiable:
		return fail(errRange)
	default:
		return fail(fmt.Errorf("the server says %s", resp.Status))
	}
	resp.Body = &watched{resp.Body, func() { timer.Reset(stall) }, func() error { return context.Cause(ctx) }}
	return resp, stop, nil
}

func defaultClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	t.ResponseHeaderTimeout = 20 * time.Second
	return &http.Client{Transport: t}
}

// bare drops the method and the address, which the caller says, from an error of Do.
func bare(err error) error {
	if u := errors.Unwrap(err); u != nil {
		return u
	}
	return err
}

// validator returns what identifies the server's version of the file. A weak ETag
// does not: two files with the same may differ in bytes.
func validator(h http.Header) string {
	if e := h.Get("ETag"); e != "" && !strings.HasPrefix(e, "W/") {
		return e
	}
	return h.Get("Last-Modified")
}

// contentRange parses "bytes FROM-TO/SIZE".
func contentRange(s string) (from, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(s, "/")
	begin, _, ok3 := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(begin, 10, 64)
	size, err2 := strconv.ParseInt(all, 10, 64)
	return from, size, ok && ok2 && ok3 && err1 == nil && err2 == nil && from >= 0 && from < size
}

func (c *Client) recall(part string) (s state) {
	if b, err := os.ReadFile(part + ".json"); err != nil || json.Unmarshal(b, &s) != nil {
		return state{}
	}
	return s
}

func (c *Client) remember(part string, s state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(part+".json", b, 0o644)
}

func (c *Client) forget(part string) error {
	if err := os.Remove(part + ".json"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// free returns the bytes that an ordinary user may still write in dir.
func free(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

type counter struct {
	w     io.Writer
	wrote func(int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.wrote(int64(n))
	return n, err
}

// watched is a body that tells when something came, and why it was cut off.
type watched struct {
	io.ReadCloser
	came  func()
	cause func() error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.came()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := w.cause(); cause != nil {
			err = cause
		}
	}
	return n, err
}
