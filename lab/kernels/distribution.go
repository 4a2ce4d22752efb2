package kernels

import (
	_ "embed"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// distribution is one whose packages apt can read: whoever makes them, kernels
// are packed much alike.
type distribution struct {
	name     string   // in specs
	origin   string   // in the archive's Release files, and in sentences
	flavours []string // what a spec can end in; the first is meant if it does not say
	keyring  string   // what the archive is signed with: a file of the host's
	key      []byte   // or its content
}

// debianDist's first flavour is small and has all that a virtual machine needs.
var debianDist = &distribution{
	name: "debian", origin: "Debian", flavours: []string{"cloud-amd64", "rt-amd64", "amd64"},
	keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
}

// ubuntuKey is the Ubuntu Archive Automatic Signing Key (2018), fingerprint
// F6ECB3762474EDA9D21B7022871920D1991BC93C, as package ubuntu-keyring has it:
// Debian has no package of it.
//
//go:embed keys/ubuntu-archive-2018.gpg
var ubuntuKey []byte

var ubuntuDist = &distribution{name: "ubuntu", origin: "Ubuntu", flavours: []string{"generic"}, key: ubuntuKey}

// image takes the name of an image's package apart.
func (d *distribution) image(name string) (abi, flavour string, ok bool) {
	rest, ok := strings.CutPrefix(name, "linux-image-")
	if !ok {
		return "", "", false
	}
	rest = strings.TrimSuffix(strings.TrimPrefix(rest, "unsigned-"), "-unsigned")
	if rest == "" || !isDigit(rest[0]) {
		return "", "", false
	}
	if flavour = d.flavour(rest); flavour == "" {
		return "", "", false
	}
	return strings.TrimSuffix(rest, "-"+flavour), flavour, true
}

// flavour returns what a release ends in, or "".
func (d *distribution) flavour(release string) string {
	for _, f := range d.flavours {
		if strings.HasSuffix(release, "-"+f) {
			return f
		}
	}
	return ""
}

// wanted are the packages that choose has to know about, of all of apt's.
func (d *distribution) wanted(names []string) []string {
	var w []string
	for _, n := range names {
		if n == "linux-image-"+d.flavours[0] || partsOf.MatchString(n) {
			w = append(w, n)
		}
	}
	slices.Sort(w)
	return w
}

// keyFile returns a file with the keys that the archive is signed with, in dir
// if there is none yet.
func (d *distribution) keyFile(dir string) (string, error) {
	if d.keyring != "" {
		return d.keyring, nil
	}
	name := filepath.Join(dir, d.name+".gpg")
	return name, os.WriteFile(name, d.key, 0o644)
}
