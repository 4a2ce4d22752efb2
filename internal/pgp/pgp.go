// Package pgp verifies OpenPGP signatures (RFC 4880) against keys that are given.
package pgp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Keyring is a set of public keys.
type Keyring struct{ keys openpgp.EntityList }

// The reasons why a signature does not count.
var (
	ErrUnsigned   = errors.New("there is no signature")
	ErrUnknownKey = errors.New("it is signed with a key that is not in the keyring")
	ErrBad        = errors.New("the signature is wrong")
)

// ReadKeyring reads public keys: one armored block after another, or binary ones.
func ReadKeyring(text []byte) (*Keyring, error) {
	const begin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	k := new(Keyring)
	if !bytes.Contains(text, []byte(begin)) {
		var err error
		if k.keys, err = openpgp.ReadKeyRing(bytes.NewReader(text)); err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		return k, nil
	}
	for _, block := range bytes.SplitAfter(text, []byte("-----END PGP PUBLIC KEY BLOCK-----")) {
		at := bytes.Index(block, []byte(begin))
		if at < 0 {
			continue
		}
		keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(block[at:]))
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		k.keys = append(k.keys, keys...)
	}
	return k, nil
}

// Add adds the keys of more.
func (k *Keyring) Add(more *Keyring) { k.keys = append(k.keys, more.keys...) }

// Fingerprints lists the keys, in upper-case hexadecimal.
func (k *Keyring) Fingerprints() []string {
	var all []string
	for _, e := range k.keys {
		all = append(all, fmt.Sprintf("%X", e.PrimaryKey.Fingerprint))
	}
	return all
}

// Verify returns who made the detached signature sig, binary or armored, of what
// signed reads: the identity and the fingerprint of the key. A key that has
// expired since does not matter, as what is signed may be older.
func (k *Keyring) Verify(signed io.Reader, sig []byte) (signer string, err error) {
	check := openpgp.CheckDetachedSignature
	if bytes.HasPrefix(bytes.TrimSpace(sig), []byte("-----BEGIN")) {
		check = openpgp.CheckArmoredDetachedSignature
	}
	return k.result(check(k.keys, signed, bytes.NewReader(sig), nil))
}

// VerifyClear returns the text of a clear-signed message, and who signed it. Only
// that text is signed, not what is around it.
func (k *Keyring) VerifyClear(message []byte) (text []byte, signer string, err error) {
	b, _ := clearsign.Decode(message)
	if b == nil {
		return nil, "", ErrUnsigned
	}
	if signer, err = k.result(b.VerifySignature(k.keys, nil)); err != nil {
		return nil, "", err
	}
	return b.Plaintext, signer, nil
}

func (k *Keyring) result(e *openpgp.Entity, err error) (string, error) {
	switch {
	case errors.Is(err, pgperrors.ErrKeyExpired) && e != nil:
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return "", ErrUnknownKey
	case errors.Is(err, io.EOF):
		return "", ErrUnsigned
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrBad, err)
	}
	name := ""
	if id := e.PrimaryIdentity(); id != nil {
		name = id.Name + ", "
	}
	return fmt.Sprintf("%s%X", name, e.PrimaryKey.Fingerprint), nil
}

// Describe says what rpm does about a signature: with which algorithms it was made,
// when, and with which key. It verifies nothing.
func Describe(sig []byte, zone *time.Location) string {
	if s, ok := describeV3(sig, zone); ok {
		return s
	}
	pkt, err := packet.Read(bytes.NewReader(sig))
	s, ok := pkt.(*packet.Signature)
	if err != nil || !ok {
		return "(not an OpenPGP signature)"
	}
	id := uint64(0)
	if s.IssuerKeyId != nil {
		id = *s.IssuerKeyId
	}
	return description(s.PubKeyAlgo, strings.ReplaceAll(s.Hash.String(), "-", ""), s.CreationTime.In(zone), id)
}

func description(algo packet.PublicKeyAlgorithm, hash string, made time.Time, key uint64) string {
	name := "Unknown public key algorithm"
	switch algo {
	case packet.PubKeyAlgoRSA:
		name = "RSA"
	case packet.PubKeyAlgoDSA:
		name = "DSA"
	case packet.PubKeyAlgoEdDSA:
		name = "EdDSA"
	case packet.PubKeyAlgoECDSA:
		name = "ECDSA"
	}
	return fmt.Sprintf("%s/%s, %s, Key ID %016x", name, hash, made.Format("Mon Jan _2 15:04:05 2006"), key)
}

// describeV3 is Describe of a signature of version 3 (RFC 4880, 5.2.2), which older
// packages have. The library knows none, so that they cannot be verified.
func describeV3(sig []byte, zone *time.Location) (string, bool) {
	r, err := packet.NewOpaqueReader(bytes.NewReader(sig)).Next()
	// version, length of what is hashed, kind, time[4], key[8], algorithms of key and hash
	if err != nil || r.Tag != 2 || len(r.Contents) < 17 || r.Contents[0] != 3 || r.Contents[1] != 5 {
		return "", false
	}
	b := r.Contents
	hash, ok := map[byte]string{1: "MD5", 2: "SHA1", 8: "SHA256", 9: "SHA384", 10: "SHA512", 11: "SHA224"}[b[16]]
	if !ok {
		hash = "Unknown hash algorithm"
	}
	made := time.Unix(int64(binary.BigEndian.Uint32(b[3:])), 0).In(zone)
	return description(packet.PublicKeyAlgorithm(b[15]), hash, made, binary.BigEndian.Uint64(b[7:])), true
}
