package main

import (
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"

	"crashlab/crashkit"
	"crashlab/crashkit/dump"
)

// checkVMLinux makes sure that the file at path is the crashed kernel's.
// Nothing else is read from it yet: symbols and types come from the dump.
func checkVMLinux(p *crashkit.Program, path string) error {
	want, err := p.BuildID()
	if err != nil {
		return fmt.Errorf("compare %s with the dump: %w", path, err)
	}
	got, err := fileBuildID(path)
	if err != nil {
		return fmt.Errorf("read the build ID of %s: %w", path, err)
	}
	if got != want {
		return fmt.Errorf("%s is not the kernel of this dump: its build ID is %s, the dump's is %s", path, got, want)
	}
	return nil
}

// maxNoteSection bounds the note section of a file, in bytes.
const maxNoteSection = 1 << 20

// fileBuildID returns the GNU build ID of an ELF file in hex.
func fileBuildID(path string) (id string, err error) {
	// Package debug/elf is not made for hostile files.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a damaged ELF file: %v", r)
		}
	}()
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOTE || s.FileSize > maxNoteSection {
			continue
		}
		b, err := s.Data()
		if err != nil {
			return "", err
		}
		notes, _ := dump.ParseNotes(b) // those before the damage
		for _, n := range notes {
			if n.Name == "GNU" && n.Type == 3 { // NT_GNU_BUILD_ID
				return hex.EncodeToString(n.Desc), nil
			}
		}
	}
	return "", errors.New("it has none")
}
