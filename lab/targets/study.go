package targets

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/magefile/mage/mg"

	"crashlab/lab"
	"crashlab/lab/blame"
	"crashlab/lab/study"
)

// Study is the namespace of the targets that measure what a choice costs.
type Study mg.Namespace

// Crashkernel finds the smallest reservation that still captures, for guests of several sizes.
func (Study) Crashkernel(ctx context.Context) error {
	return runStudy(ctx, func(l *lab.Lab) (*study.Study, error) { return l.StudyCrashkernel(ctx, studyRuns) })
}

// Preemption boots the preemption models and measures wake-up latency and throughput.
func (Study) Preemption(ctx context.Context) error {
	return runStudy(ctx, func(l *lab.Lab) (*study.Study, error) { return l.StudyPreemption(ctx, studyRuns) })
}

// Compression packs one kernel in every way and measures size, packing and unpacking.
func (Study) Compression(ctx context.Context) error {
	return runStudy(ctx, func(l *lab.Lab) (*study.Study, error) { return l.StudyCompression(ctx, studyRuns) })
}

// studyRuns is how often a study measures each thing.
const studyRuns = 3

// runStudy makes a study, prints it and writes its page.
func runStudy(ctx context.Context, make func(*lab.Lab) (*study.Study, error)) error {
	if err := ready(ctx); err != nil {
		return exit(err)
	}
	l, err := open()
	if err != nil {
		return exit(err)
	}
	s, err := make(l)
	l.UI.Close()
	if err != nil {
		return exit(err)
	}
	fmt.Println()
	if err := s.WriteText(os.Stdout); err != nil {
		return exit(err)
	}
	html, err := writeStudy(l.Settings.Runs, s)
	if err != nil {
		return exit(blame.New(blame.Infrastructure, "write the study", err))
	}
	fmt.Printf("\n%s\n", html)
	return nil
}

// writeStudy writes the study as JSON and as a page into dir and returns the
// page's name.
func writeStudy(dir string, s *study.Study) (string, error) {
	base := filepath.Join(dir, "study-"+s.Name)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(base+".json", append(text, '\n'), 0o666); err != nil {
		return "", err
	}
	f, err := os.Create(base + ".html")
	if err != nil {
		return "", err
	}
	if err := s.WriteHTML(f); err != nil {
		f.Close()
		return "", err
	}
	return f.Name(), f.Close()
}
