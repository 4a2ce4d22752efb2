//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// truth records the guest's own view of itself on the truth disk.
func (a *agent) truth(spec *wire.TruthSpec) error {
	if spec == nil {
		return nil
	}
	a.line.phase(wire.PhaseTruth)
	d, err := a.openDisk(wire.TruthDisk)
	if err != nil {
		return err
	}
	w, err := wire.NewTruthWriter(d.buf, d.put)
	if err != nil {
		return err
	}
	r := &recorder{w: w, buf: make([]byte, 1<<16)}
	r.processes("/proc", spec)
	for _, path := range spec.Files {
		r.file(path)
	}
	r.add("errors", r.missing.Bytes())
	if r.err != nil {
		return r.err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return d.close()
}

// recorder copies files to an archive. A file that cannot be read is noted; an
// error of the archive ends everything.
type recorder struct {
	w       *wire.TruthWriter
	buf     []byte
	missing bytes.Buffer
	err     error
}

func (r *recorder) add(path string, content []byte) {
	if r.err == nil {
		r.err = r.w.File(strings.TrimPrefix(path, "/"), content)
	}
}

// file records one file. The size of a file in /proc is not known beforehand.
func (r *recorder) file(path string) {
	b, err := r.read(path)
	if err != nil {
		r.note(path, err)
		return
	}
	r.add(path, b)
}

func (r *recorder) note(path string, err error) {
	fmt.Fprintf(&r.missing, "%s: %v\n", path, err)
}

// read returns the content of a file, valid until the next read.
func (r *recorder) read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for n := 0; ; {
		if len(r.buf)-n < 1<<15 {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		k, err := unix.Read(fd, r.buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if k == 0 {
			return r.buf[:n], nil
		}
		n += k
	}
}

// processes records the files of every process and thread that proc lists.
func (r *recorder) processes(proc string, spec *wire.TruthSpec) {
	for _, pid := range r.numbers(proc) {
		dir := filepath.Join(proc, pid)
		for _, name := range spec.Process {
			if name == "fd" {
				r.links(filepath.Join(dir, name))
			} else {
				r.file(filepath.Join(dir, name))
			}
		}
		if len(spec.Thread) == 0 {
			continue
		}
		for _, tid := range r.numbers(filepath.Join(dir, "task")) {
			for _, name := range spec.Thread {
				r.file(filepath.Join(dir, "task", tid, name))
			}
		}
	}
}

// links records where the symbolic links in dir point to.
func (r *recorder) links(dir string) {
	for _, n := range r.numbers(dir) {
		path := filepath.Join(dir, n)
		target, err := os.Readlink(path)
		if err != nil {
			r.note(path, err)
			continue
		}
		r.add(path, []byte(target))
	}
}

// numbers returns the names in dir that are numbers.
func (r *recorder) numbers(dir string) []string {
	names, err := os.ReadDir(dir)
	if err != nil {
		r.note(dir, err)
	}
	var out []string
	for _, n := range names {
		if _, err := strconv.ParseUint(n.Name(), 10, 31); err == nil {
			out = append(out, n.Name())
		}
	}
	return out
}
