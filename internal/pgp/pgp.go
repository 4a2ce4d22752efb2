// Package pgp verifies OpenPGP signatures (RFC 4880) against keys that are given.
package pgp

import (
	"bytes"
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
	pkt, err := packet.Read(bytes.NewReader(sig))
	s, ok := pkt.(*packet.Signature)
	if err != nil || !ok {
		return "(not an OpenPGP signature)"
	}
	name := "Unknown public key algorithm"
	switch s.PubKeyAlgo {
	case packet.PubKeyAlgoRSA:
		name = "RSA"
	case packet.PubKeyAlgoDSA:
		name = "DSA"
	case packet.PubKeyAlgoEdDSA:
		name = "EdDSA"
	case packet.PubKeyAlgoECDSA:
		name = "ECDSA"
	}
	id := uint64(0)
	if s.IssuerKeyId != nil {
		id = *s.IssuerKeyId
	}
	return fmt.Sprintf("%s/%s, %s, Key ID %016x", name, strings.ReplaceAll(s.Hash.String(), "-", ""),
		s.CreationTime.In(zone).Format("Mon Jan _2 15:04:05 2006"), id)
}
