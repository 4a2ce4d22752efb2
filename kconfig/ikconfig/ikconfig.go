// Package ikconfig takes a kernel's configuration out of what carries it: a
// bzImage or vmlinux that was built with CONFIG_IKCONFIG, the module configs.ko,
// /proc/config.gz, or a plain .config.
//
// kernel/configs.c puts the configuration, packed with gzip, between the marks
// IKCFG_ST and IKCFG_ED.
package ikconfig

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"

	"crashlab/kconfig"
)

// ErrNone says that a file carries no configuration.
var ErrNone = errors.New("carries no configuration: it was built without CONFIG_IKCONFIG")

const (
	maxFile   = 2 << 30  // bytes; a vmlinux with debug information has some 500 MB
	maxKernel = 1 << 30  // bytes, of an unpacked image
	maxConfig = 16 << 20 // bytes, of an unpacked configuration
)

// ReadFile returns the configuration that the file called name carries. The
// error wraps ErrNone if it is a kernel without one.
func ReadFile(name string) (*kconfig.Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readAll(f, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	c, err := Find(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// Find returns the configuration in b, the content of one of the files that the
// package knows.
func Find(b []byte) (*kconfig.Config, error) {
	switch {
	case bytes.HasPrefix(b, []byte("\x1f\x8b")): // /proc/config.gz, or a packed vmlinux
		text, err := gunzip(b, maxKernel)
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(text, []byte("\x1f\x8b")) {
			return nil, errors.New("is packed twice")
		}
		return Find(text)
	case isImage(b):
		return fromImage(b)
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		return marked(b)
	}
	return kconfig.Parse(bytes.NewReader(b))
}

// marked finds the configuration between its marks.
func marked(b []byte) (*kconfig.Config, error) {
	const begin = "IKCFG_ST"
	for {
		i := bytes.Index(b, []byte(begin))
		if i < 0 {
			return nil, ErrNone
		}
		b = b[i+len(begin):]
		if !bytes.HasPrefix(b, []byte("\x1f\x8b")) {
			continue // the mark as a string
		}
		text, err := gunzip(b, maxConfig)
		if err != nil {
			return nil, fmt.Errorf("the configuration is damaged: %w", err)
		}
		return kconfig.Parse(bytes.NewReader(text))
	}
}

// gunzip unpacks the first gzip member of b.
func gunzip(b []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return readAll(z, limit)
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}
