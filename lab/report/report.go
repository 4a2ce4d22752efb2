// Package report writes what a run came to: report.html for people,
// report.json for programs and junit.xml for CI. Each is a rendering of the
// ledger and of nothing else.
package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"crashlab/lab/ledger"
)

// The names of the files in the run's folder.
const (
	HTMLFile  = "report.html"
	JSONFile  = "report.json"
	JUnitFile = "junit.xml"
)

// Write writes the three reports of run into dir, the run's folder. A file is
// replaced as a whole or not at all.
func Write(dir string, run *ledger.Run) error {
	return errors.Join(
		write(filepath.Join(dir, HTMLFile), run, HTML),
		write(filepath.Join(dir, JSONFile), run, JSON),
		write(filepath.Join(dir, JUnitFile), run, JUnit),
	)
}

func write(path string, run *ledger.Run, render func(io.Writer, *ledger.Run) error) error {
	var b bytes.Buffer
	if err := render(&b, run); err != nil {
		return fmt.Errorf("render %s: %w", path, err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b.Bytes(), 0o644); err != nil {
		return errors.Join(fmt.Errorf("write report: %w", err), removeIfThere(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("write report: %w", err), removeIfThere(tmp))
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// JSON writes the ledger as JSON.
func JSON(w io.Writer, run *ledger.Run) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(run)
}
