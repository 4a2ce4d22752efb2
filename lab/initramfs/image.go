package initramfs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"crashlab/internal/execx"
	"crashlab/lab/wire"
)

// Image is an initramfs whose process 1 is the agent.
type Image struct {
	Agent   string   // the agent's binary on the host, from BuildAgent
	Modules []Module // loaded in this order
	Job     wire.Job // Modules is filled in by Write
	Files   []File   // what else the job names
}

// Write writes the image as a cpio archive, not compressed: decompressing in
// the emulated guest costs more than reading.
func (im Image) Write(w io.Writer) error {
	files := append([]File{{Name: "init", Mode: 0o755, Source: im.Agent}}, im.Files...)
	job := im.Job
	job.Modules = nil
	for _, m := range im.Modules {
		name := "modules/" + m.Name + ".ko"
		files = append(files, File{Name: name, Data: m.Data})
		job.Modules = append(job.Modules, wire.Module{Path: "/" + name})
	}
	if err := job.Check(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	text, err := json.MarshalIndent(job, "", "\t")
	if err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	files = append(files, File{Name: wire.JobPath[1:], Data: append(text, '\n')})
	return Write(w, files)
}

// BuildAgent compiles the agent for the architecture arch, in Go's words, with the
// Go command goBinary, in the folder dir of this module's source, to the file out. The same source and compiler
// give the same bytes.
func BuildAgent(ctx context.Context, goBinary, dir, arch, out string) error {
	_, err := execx.Run(ctx, execx.Cmd{
		Argv: []string{goBinary, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "crashlab/lab/agent"},
		Dir:  dir,
		Env:  []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOAMD64=v1", "GOFLAGS="},
	})
	if err != nil {
		return fmt.Errorf("build the agent: %w", err)
	}
	return nil
}
