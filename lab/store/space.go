package store

import (
	"context"
	"errors"
	"syscall"

	"crashlab/lab/blame"
)

// Free returns the bytes that an ordinary user may still write to the file
// system of the store.
func (s *Store) Free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return 0, blame.New(blame.Infrastructure, "measure the free space of "+s.dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// blame wraps an error of the store's own file operations.
func (s *Store) blame(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := blame.New(blame.Infrastructure, doing, err)
	if s.isFull(err) {
		e.WithHint("free some space in %s, or set %s to a directory on another disk", s.dir, EnvDir)
	}
	return e
}

// full wraps the error of a build if the reason is a full disk.
func (s *Store) full(doing string, err error) error {
	if s.isFull(err) {
		return s.blame(doing, err)
	}
	return err
}

// isFull tells a full disk: by errno where we wrote ourselves, and by the
// space left where it was a child process.
func (s *Store) isFull(err error) bool {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return true
	}
	free, ferr := s.Free()
	return ferr == nil && free < 64<<10
}
