//go:build linux

package main

import (
	"errors"
	"fmt"

	"crashlab/lab/wire"
	"golang.org/x/sys/unix"
)

// loadModule loads one module. That it is there already is no error.
func loadModule(m wire.Module) error {
	fd, err := unix.Open(m.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open module %s: %w", m.Path, err)
	}
	defer unix.Close(fd)
	if err := unix.FinitModule(fd, m.Params, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", m.Path, err)
	}
	return nil
}
