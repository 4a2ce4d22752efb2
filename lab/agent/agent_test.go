//go:build linux

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crashlab/lab/wire"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const iomem = `00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-1ffd9fff : System RAM
  11400000-12201ef1 : Kernel code
  15000000-1effffff : Crash kernel
1ffda000-1fffffff : Reserved
`

func TestCheckReserved(t *testing.T) {
	without := strings.ReplaceAll(iomem, "Crash kernel", "Kernel bss")
	for name, c := range map[string]struct {
		size, want uint64
		iomem      string
		err        string // part of it; empty means none
	}{
		"good":              {160 << 20, 96 << 20, iomem, ""},
		"exactly enough":    {96 << 20, 96 << 20, iomem, ""},
		"nothing asked for": {1 << 20, 0, iomem, ""},
		"nothing reserved":  {0, 0, without, "crashkernel="},
		"too little":        {64 << 20, 96 << 20, iomem, "64 MiB are reserved for the capture kernel, want 96"},
		"not in iomem":      {160 << 20, 0, without, "/proc/iomem"},
		"only in a name":    {160 << 20, 0, "00000000-00000fff : Crash kernel image\n", "/proc/iomem"},
	} {
		err := checkReserved(c.size, c.want, c.iomem)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: checkReserved(%d, %d, …) = %v; want %q", name, c.size, c.want, err, c.err)
		}
	}
}

func TestMeminfo(t *testing.T) {
	const text = "MemTotal:         122372 kB\nMemFree:           97212 kB\nMemAvailable:      96000 kB\nHugePages_Total:       0\nBroken:   x kB\n"
	for _, c := range []struct {
		key  string
		want uint64
		ok   bool
	}{
		{"MemTotal", 122372 << 10, true},
		{"MemAvailable", 96000 << 10, true},
		{"HugePages_Total", 0, true},
		{"Mem", 0, false},
		{"Broken", 0, false},
	} {
		got, err := meminfo(text, c.key)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("meminfo(%q) = %d, %v; want %d, ok %t", c.key, got, err, c.want, c.ok)
		}
	}
}

func TestTriggerResult(t *testing.T) {
	for name, c := range map[string]struct {
		status unix.WaitStatus
		err    error
		want   string
		errno  error
	}{
		"loaded":      {0, nil, "returned without a crash", nil},
		"refused":     {unix.WaitStatus(unix.ENOEXEC) << 8, nil, "exec format error", unix.ENOEXEC},
		"killed":      {unix.WaitStatus(unix.SIGKILL), nil, "an oops that did not panic", nil},
		"cannot wait": {0, unix.ECHILD, "wait for the trigger", unix.ECHILD},
	} {
		err := triggerResult("/scenario/x.ko", c.status, c.err)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.errno != nil && !errors.Is(err, c.errno) {
			t.Errorf("%s: triggerResult() = %v; want %q and %v", name, err, c.want, c.errno)
		}
	}
}

// files makes files below a new folder; a content that begins with -> is a link.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o777)
		if target, link := strings.CutPrefix(text, "->"); err == nil && link {
			err = os.Symlink(target, path)
		} else if err == nil {
			err = os.WriteFile(path, []byte(text), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindDisk(t *testing.T) {
	dir := files(t, map[string]string{"vda/serial": "truth\n", "vdb/serial": "capture", "sr0/size": "0"})
	if got, err := findDisk(dir, wire.CaptureDisk, 0); got != "vdb" || err != nil {
		t.Errorf("findDisk(capture) = %q, %v; want vdb", got, err)
	}
	_, err := findDisk(dir, "cap", 10*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), `"vda=truth" "vdb=capture"`) {
		t.Errorf("findDisk(cap) = %v; want an error with the disks that exist", err)
	}
	if _, err := findDisk(filepath.Join(dir, "none"), "capture", 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("findDisk in a missing folder = %v; want ErrNotExist", err)
	}
}

func TestDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	d, err := (&agent{}).startDisk(fd, path)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	buf := d.buf
	for i := range 20 {
		n := (1 + i%3) * wire.PageSize
		copy(buf, bytes.Repeat([]byte{byte(i)}, n))
		want = append(want, buf[:n]...)
		if buf, err = d.put(buf[:n]); err != nil {
			t.Fatal(err)
		}
		if len(buf) != blockSize {
			t.Fatalf("put returned a buffer of %d bytes; want %d", len(buf), blockSize)
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the disk has %d bytes, error %v; want %d others", len(got), err, len(want))
	}
}

func TestDiskError(t *testing.T) {
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY, 0) // cannot be written to
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	d, err := (&agent{}).startDisk(fd, "the disk")
	if err != nil {
		t.Fatal(err)
	}
	for buf := d.buf; err == nil; {
		buf, err = d.put(buf)
	}
	if !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "write to the disk") {
		t.Errorf("put = %v; want EBADF while writing to the disk", err)
	}
}

func TestRecorder(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20_000) // more than the first buffer
	dir := files(t, map[string]string{
		"version": "Linux", "kallsyms": long, "self/status": "not a number",
		"7/status": "Name: seven", "7/fd/0": "->/dev/console", "7/fd/10": "->pipe:[3]",
		"7/task/7/stat": "7 (seven)", "7/task/8/stat": "8 (seven)",
		"9/status": "Name: nine", // has neither fd nor task
	})
	var stream []byte
	buf := make([]byte, 8*wire.PageSize)
	w, err := wire.NewTruthWriter(buf, func(b []byte) ([]byte, error) {
		stream = append(stream, b...)
		return buf, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{w: w, buf: make([]byte, 1<<16)}
	r.processes(dir, &wire.TruthSpec{Process: []string{"status", "fd"}, Thread: []string{"stat"}})
	r.file(filepath.Join(dir, "version"))
	r.file(filepath.Join(dir, "kallsyms"))
	r.file(filepath.Join(dir, "none"))
	if r.err != nil {
		t.Fatal(r.err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "truth.raw")
	if err := os.WriteFile(image, stream, 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := wire.ReadTruth(image)
	if err != nil {
		t.Fatal(err)
	}
	want := wire.Files{}
	for name, text := range map[string]string{
		"version": "Linux", "kallsyms": long, "7/status": "Name: seven", "7/fd/0": "/dev/console", "7/fd/10": "pipe:[3]",
		"7/task/7/stat": "7 (seven)", "7/task/8/stat": "8 (seven)", "9/status": "Name: nine",
	} {
		want[strings.TrimPrefix(filepath.Join(dir, name), "/")] = []byte(text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
	for _, name := range []string{"none", "9/fd", "9/task"} {
		if !strings.Contains(r.missing.String(), filepath.Join(dir, name)+": ") {
			t.Errorf("missing files = %q; want %s among them", r.missing.String(), name)
		}
	}
}

// The workers do on any Linux what they do in the guest.
func TestStartWorker(t *testing.T) {
	for _, w := range append(wire.DefaultWorkload(), wire.Worker{Name: "lab-spin", Kind: wire.Spin}) {
		pid, err := startWorker(w)
		if pid != 0 && pid != os.Getpid() {
			t.Cleanup(func() {
				_ = unix.Kill(pid, unix.SIGKILL)
				_, _ = unix.Wait4(pid, nil, 0, nil)
			})
		}
		if err != nil {
			t.Errorf("startWorker(%v) = %v", w, err)
		}
	}
}

func TestTriggerProcessReturnsErrno(t *testing.T) {
	pid, err := spawn(newChild(wire.TriggerComm, unix.SYS_WRITE, ^uintptr(0), 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if err := triggerResult("x.ko", status, err); !errors.Is(err, unix.EBADF) {
		t.Errorf("the trigger wrote to no file: %v; want EBADF", err)
	}
}

// TestSummary knows the numbers: 1, 2, 3 … 200 µs late.
func TestSummary(t *testing.T) {
	late := make([]time.Duration, 200)
	for i := range late {
		late[i] = time.Duration(200-i) * time.Microsecond
	}
	got := summary(late, 4096, time.Second)
	want := &wire.Measured{Wakeups: 200, Median: 101 * time.Microsecond, P99: 199 * time.Microsecond, Worst: 200 * time.Microsecond, Work: 4096, Duration: time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}
