package rpm

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Tags of the signature header (lib/rpmtag.h).
const (
	sigDSAHeader = 267
	sigRSAHeader = 268
	sigSHA1      = 269
	sigLongSize  = 270
	sigSHA256    = 273
	sigOpenPGP   = 278
	sigSize      = 1000
	sigPGP       = 1002
	sigMD5       = 1004
	sigGPG       = 1005
)

// Tags of the header.
const (
	tagPayloadDigest     = 5092
	tagPayloadDigestAlgo = 5093
)

// ErrDamaged is wrapped by the errors of Verify about what is not as it was built.
var ErrDamaged = errors.New("the package is damaged")

// Verify reads the whole package and compares it with each digest that it has. It
// returns the names of the digests: "header SHA256", "payload SHA256". A package
// without any is an error. Digests tell damage, not origin: see Signatures.
func (p *Package) Verify(ctx context.Context) (digests []string, err error) {
	if want := p.signedSize(); want > 0 && p.size-p.header != want {
		how := "something follows it"
		if p.size-p.header < want {
			how = "it is cut short"
		}
		return nil, fmt.Errorf("%w: %s: %d bytes instead of %d", ErrDamaged, how, p.size, want+p.header)
	}
	type digest struct {
		name string
		h    hash.Hash
		want string
	}
	var header, payload, both []digest
	add := func(to *[]digest, name string, h hash.Hash, want string) {
		if want != "" {
			*to = append(*to, digest{name, h, want})
		}
	}
	add(&header, "header SHA1", sha1.New(), p.Signature.GetTag(sigSHA1).String())
	add(&header, "header SHA256", sha256.New(), p.Signature.GetTag(sigSHA256).String())
	if b := p.Signature.GetTag(sigMD5).Bytes(); len(b) > 0 {
		add(&both, "MD5", md5.New(), fmt.Sprintf("%x", b))
	}
	if want := p.Header.GetTag(tagPayloadDigest).String(); want != "" {
		switch algo := p.Header.GetTag(tagPayloadDigestAlgo).Int64(); algo { // of RFC 4880, 9.4
		case 8:
			add(&payload, "payload SHA256", sha256.New(), want)
		case 10:
			add(&payload, "payload SHA512", sha512.New(), want)
		default:
			return nil, fmt.Errorf("the payload's digest is of the unknown kind %d", algo)
		}
	}
	feed := func(off, n int64, groups ...[]digest) error {
		var ws []io.Writer
		for _, g := range groups {
			for _, d := range g {
				ws = append(ws, d.h)
			}
		}
		_, err := io.Copy(io.MultiWriter(ws...), &stoppable{ctx, io.NewSectionReader(p.r, off, n)})
		return err
	}
	if err := feed(p.header, p.header2-p.header, header, both); err != nil {
		return nil, err
	}
	if len(both)+len(payload) > 0 {
		if err := feed(p.header2, p.size-p.header2, both, payload); err != nil {
			return nil, err
		}
	}
	for _, g := range [][]digest{header, payload, both} {
		for _, d := range g {
			if got := fmt.Sprintf("%x", d.h.Sum(nil)); got != d.want {
				return nil, fmt.Errorf("%w: its %s is %s and should be %s", ErrDamaged, d.name, got, d.want)
			}
			digests = append(digests, d.name)
		}
	}
	if len(digests) == 0 {
		return nil, errors.New("the package has no digests")
	}
	return digests, nil
}

// signedSize returns how long header and payload are to be, in bytes; 0 if the package does not say.
func (p *Package) signedSize() int64 {
	if n := p.Signature.GetTag(sigLongSize).Int64(); n > 0 {
		return n
	}
	return p.Signature.GetTag(sigSize).Int64()
}

// Signature is an OpenPGP signature of a part of a package.
type Signature struct {
	Over   string // "header", whose digest of the payload covers that too; or "header and payload"
	Packet []byte // the signature, in binary form

	from, size int64
}

// Signatures returns the signatures that the package has, the most usual kind first.
func (p *Package) Signatures() []Signature {
	var all []Signature
	add := func(over string, size int64, packet []byte) {
		if len(packet) > 0 {
			all = append(all, Signature{over, packet, p.header, size})
		}
	}
	header := p.header2 - p.header
	add("header", header, p.Signature.GetTag(sigRSAHeader).Bytes())
	add("header", header, p.Signature.GetTag(sigDSAHeader).Bytes())
	for _, s := range p.Signature.GetTag(sigOpenPGP).StringSlice() {
		if b, err := base64.StdEncoding.DecodeString(s); err == nil {
			add("header", header, b)
		}
	}
	add("header and payload", p.size-p.header, p.Signature.GetTag(sigPGP).Bytes())
	add("header and payload", p.size-p.header, p.Signature.GetTag(sigGPG).Bytes())
	return all
}

// Signed returns a reader of what s signs.
func (p *Package) Signed(s Signature) io.Reader { return io.NewSectionReader(p.r, s.from, s.size) }

// stoppable is a reader that stops when its context does.
type stoppable struct {
	ctx context.Context //nolint:containedctx // a Reader has no other way to stop
	r   io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}
