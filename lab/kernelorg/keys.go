package kernelorg

import (
	_ "embed"

	"crashlab/internal/pgp"
)

//go:embed keys/sums.asc
var sumsKeys []byte

//go:embed keys/releases.asc
var releaseKeys []byte

// The fingerprints of the keys in keys/.
const (
	autosigner = "B8868C80BA62A1FFFAF5FDA9632D3A06589DA6B1" // autosigner@kernel.org

	gregKH       = "647F28654894E3BD457199BE38DBBDC86092693E" // stable releases
	torvalds     = "ABAF11C65A2970B130ABE3C479BE3E4300411886" // mainline
	sashaLevin   = "E27E5D8A3403A2EF66873BBCDEA66FF797772CDC" // stable releases
	benHutchings = "AC2B29BD34A6AFDDB3F68F35E7BFC8EC95861109" // stable releases until 3.16
)

// Keys are the keys that what a mirror has must be signed with.
type Keys struct {
	Sums     *pgp.Keyring // sha256sums.asc
	Releases *pgp.Keyring // linux-*.tar.sign
}

// PinnedKeys returns kernel.org's keys, as they are in this repository.
func PinnedKeys() (Keys, error) {
	sums, err := pgp.ReadKeyring(sumsKeys)
	if err != nil {
		return Keys{}, err
	}
	releases, err := pgp.ReadKeyring(releaseKeys)
	return Keys{sums, releases}, err
}
