package kernels

import "context"

// SourceArchive downloads Debian's archive of the sources of a release such as
// "6.1" into dir and returns its path. Kernels are built without it: it is for
// measuring how fast it unpacks.
func (s *Sources) SourceArchive(ctx context.Context, release, dir string) (string, error) {
	d := debianTrees{s.providers["debian"].(*debian)}
	p, err := d.plan(ctx, release, false)
	if err != nil {
		return "", err
	}
	file, done, err := d.archive(ctx, p.packages[0], dir)
	if err != nil {
		return "", err
	}
	return file, done()
}
