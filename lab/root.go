package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"crashlab/lab/blame"
)

var moduleLine = regexp.MustCompile(`(?m)^module crashlab$`)

// FindRoot returns the checkout that the current folder is in: the guest's agent
// is built from its source.
func FindRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", blame.New(blame.Infrastructure, "find the checkout", err)
	}
	for start := dir; ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		switch {
		case err == nil && moduleLine.Match(b):
			return dir, nil
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return "", blame.New(blame.Infrastructure, "find the checkout", err)
		case dir == filepath.Dir(dir):
			return "", blame.New(blame.Usage, "find the checkout",
				fmt.Errorf("neither %s nor a folder above it has crashlab's go.mod", start))
		}
	}
}
