package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/peterh/liner"
	"golang.org/x/term"

	"crashlab/crashkit/command"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

const prompt = "crashkit> "

// repl reads commands from a prompt until quit or end of input. A command that
// failed there has been seen: the exit status is 0.
func (s *session) repl() int {
	s.interactive = true
	banner, err := s.env.Banner()
	out := command.NewText(s.stdout)
	banner.WriteText(out)
	out.String("\n")
	if err := out.Flush(); err != nil {
		s.warn(err)
		return exitFailed
	}
	s.warn(err)

	ed := liner.NewLiner()
	defer ed.Close()
	ed.SetCtrlCAborts(true)
	ed.SetTabCompletionStyle(liner.TabPrints)
	ed.SetWordCompleter(func(line string, pos int) (string, []string, string) {
		head, candidates := s.env.Complete(line[:pos])
		return head, candidates, line[pos:]
	})
	history := historyPath()
	if err := readHistory(ed, history); err != nil {
		s.warn(fmt.Errorf("history: %w", err))
	}
	for {
		line, err := ed.Prompt(prompt)
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			continue
		case errors.Is(err, io.EOF):
			fmt.Fprintln(s.stdout)
		case err != nil:
			s.warn(err)
			return exitFailed
		}
		if strings.TrimSpace(line) != "" {
			ed.AppendHistory(line)
		}
		if err != nil || !s.interruptible(line) {
			break
		}
	}
	if err := writeHistory(ed, history); err != nil {
		s.warn(fmt.Errorf("history: %w", err))
	}
	return exitOK
}

// interruptible runs a command line that Ctrl-C stops.
func (s *session) interruptible(line string) bool {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return s.line(ctx, line)
}

// historyPath returns where the history of commands is kept; "" if nowhere.
func historyPath() string {
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "crashkit", "history")
}

func readHistory(ed *liner.State, path string) error {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || path == "" {
			return nil
		}
		return err
	}
	defer f.Close()
	_, err = ed.ReadHistory(f)
	return err
}

// writeHistory replaces the file as a whole, so that two sessions that end at
// once leave the history of one of them.
func writeHistory(ed *liner.State, path string) error {
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "history")
	if err != nil {
		return err
	}
	_, err = ed.WriteHistory(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}
