package kbuild

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"

	"crashlab/internal/execx"
	"crashlab/lab/blame"
)

// compiles matches a command line that compiles or assembles one file of the
// kernel into an object.
var compiles = regexp.MustCompile(` -c -o (\S+\.o) \S+\.[cS]\b`)

// Count returns how many files a build of src as w asks would compile and
// assemble; what wraps the kernel into its image is left out. It builds none of them: only what make must have
// before it can say what it would do.
func (b *Builder) Count(ctx context.Context, src Source, w *Want) (int, error) {
	o, err := b.open(ctx, src, w)
	if err != nil {
		return 0, err
	}
	defer o.unlock()
	if _, err := o.configure(ctx); err != nil {
		return 0, err
	}
	doing := "count the files of " + src.Version + w.Suffix
	o.say(doing)
	log, err := os.Create(filepath.Join(o.dir, buildLog))
	if err != nil {
		return 0, blame.New(blame.Infrastructure, doing, err)
	}
	defer log.Close()
	if err := o.run(ctx, doing, log, "prepare"); err != nil {
		return 0, err
	}
	// It ends in an error at the first rule that needs what another one would have
	// made: that links the kernel, and only the image's own wrapper comes after it.
	out, err := execx.Run(ctx, execx.Cmd{Argv: o.argv("-n", "-k", "V=1", w.Built().Image), Env: o.environment()})
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	files := distinctObjects(out)
	if files == 0 {
		return 0, blame.New(blame.Kernel, doing, errors.Join(errors.New("make -n names none"), err))
	}
	return files, nil
}

// distinctObjects counts the objects in what make -n printed. Each command line
// is in it several times, as a rule of the kernel's also prints and records it.
func distinctObjects(out []byte) int {
	seen := make(map[string]bool)
	for _, m := range compiles.FindAllSubmatch(out, -1) {
		seen[string(m[1])] = true
	}
	return len(seen)
}
