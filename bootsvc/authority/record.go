// Package authority is the boot service's own CA, which signs the certificates
// of machines, of people and of the boot service itself, and its rotation. The
// record of it is one document of the store, so that several boot services have
// one CA; a Keeper follows it, and issues nothing itself.
//
// A rotation is a decision over values: Record.Advance. Who trusts what, it is
// told: bootsvc/assign knows the machines, People the people.
package authority

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"slipway/controlplane/pki"
)

const (
	// validity is how long a CA holds.
	validity = 20 * 365 * 24 * time.Hour
	// trustAtMost is how long phase trust lasts. Who has not taken the new CA by
	// then believes it all the same: the old one vouches for it.
	trustAtMost = time.Hour
	// maxLine is how many CAs back a machine may have been off. It bounds what
	// every handshake shows.
	maxLine = 8
)

// Phase is how far a rotation has come.
type Phase string

// The phases. Before the first and after the last there is one CA only.
const (
	Trust  Phase = "trust"  // both are trusted, the old one signs
	Use    Phase = "use"    // both are trusted, the new one signs
	Retire Phase = "retire" // only the new one is trusted
)

// Record is the CA as it is kept. It is encrypted at rest.
type Record struct {
	pki.CA         // signs
	Next   *pki.CA `json:"next,omitempty"`     // is to sign once it is trusted
	Former []byte  `json:"previous,omitempty"` // signed before and is trusted still, PEM; its key is destroyed
	// Line leads back to the CAs before, PEM: of each, the newest first, what it
	// signed for its successor, and its own certificate.
	Line     []byte    `json:"line,omitempty"`
	Rotation *Rotation `json:"rotation,omitempty"`
}

// Rotation is one that is under way.
type Rotation struct {
	Phase Phase     `json:"phase"`
	Since time.Time `json:"since"` // when the phase began
	// Hurried is a person's word that nobody is waited for any more.
	Hurried bool `json:"hurried,omitempty"`
}

// Why a rotation does not go on.
var (
	ErrNoRotation = errors.New("the boot service's CA is not being rotated: slipway ca rotate begins")
	ErrEarly      = errors.New("the new CA does not sign yet, so nobody could have renewed: see slipway ca status")
)

// newRecord makes the first CA.
func newRecord(now time.Time) (Record, error) {
	ca, err := newCA(now)
	return Record{CA: ca}, err
}

// newCA makes a CA. Its name tells it from those before and after.
func newCA(now time.Time) (pki.CA, error) {
	return pki.NewLine("Slipway boot service, "+now.UTC().Format("2006-01-02T15:04:05"), now, validity)
}

// Trusted are the CAs that are trusted now, PEM. The one that signs comes first.
func (r Record) Trusted() []byte {
	bundle := bytes.Clone(r.CertPEM)
	if r.Next != nil {
		bundle = append(bundle, r.Next.CertPEM...)
	}
	return append(bundle, r.Former...)
}

// Begin makes the next CA and enters the first phase. A rotation that is under
// way stays as it is.
func (r Record) Begin(now time.Time) (Record, error) {
	if r.Rotation != nil {
		return r, nil
	}
	next, err := newCA(now)
	if err != nil {
		return r, err
	}
	r.Next, r.Rotation = &next, &Rotation{Phase: Trust, Since: now}
	return r, nil
}

// Hurry lets the old CA retire though not everybody has renewed.
func (r Record) Hurry() (Record, error) {
	switch {
	case r.Rotation == nil:
		return r, ErrNoRotation
	case r.Rotation.Phase == Trust:
		return r, ErrEarly
	}
	hurried := *r.Rotation
	hurried.Hurried = true
	r.Rotation = &hurried
	return r, nil
}

// Advance enters the next phase if nobody is waited for in this one. The record
// is as it was if somebody is, or if there is no rotation.
func (r Record) Advance(holders []Holder, now time.Time) (Record, error) {
	switch {
	case r.Rotation == nil:
		return r, nil
	case r.Rotation.Phase == Trust && !now.Before(r.Rotation.Since.Add(trustAtMost)):
	case len(r.Waiting(holders)) > 0:
		return r, nil
	}
	switch r.Rotation.Phase {
	case Trust:
		return r.handOver(now)
	case Use:
		r.Former, r.Rotation = nil, &Rotation{Phase: Retire, Since: now, Hurried: r.Rotation.Hurried}
	case Retire:
		r.Rotation = nil
	}
	return r, nil
}

// handOver lets the next CA sign. The old one's key signs for its successor and
// is forgotten.
func (r Record) handOver(now time.Time) (Record, error) {
	cross, err := r.Vouch(*r.Next)
	if err != nil {
		return r, err
	}
	line := append(append(cross, r.CertPEM...), r.Line...)
	r.Line = blocks(line, 2*maxLine)
	r.Former, r.CA, r.Next = r.CertPEM, *r.Next, nil
	r.Rotation = &Rotation{Phase: Use, Since: now}
	return r, nil
}

// blocks are the first n blocks of a PEM text.
func blocks(text []byte, n int) (first []byte) {
	for block, rest := pem.Decode(text); block != nil && n > 0; block, rest = pem.Decode(rest) {
		first = append(first, pem.EncodeToMemory(block)...)
		n--
	}
	return first
}

// View is a record as it is used: nothing of it changes.
type View struct {
	Record
	Signer  *x509.Certificate
	Bundle  []byte // Trusted
	Digest  string // of the bundle: enroll.TrustDigest
	Pool    *x509.CertPool
	history []*x509.Certificate
}

// NewView reads a record.
func NewView(r Record) (*View, error) {
	v := &View{Record: r, Bundle: r.Trusted(), Pool: x509.NewCertPool()}
	trusted, err := pki.ParseCerts(v.Bundle)
	if err != nil {
		return nil, fmt.Errorf("read the boot service's CA: %w", err)
	}
	for _, cert := range trusted {
		v.Pool.AddCert(cert)
	}
	if v.Signer, err = r.Signer(); err != nil {
		return nil, fmt.Errorf("read the boot service's CA: %w", err)
	}
	v.history = trusted
	if len(r.Line) > 0 {
		former, err := pki.ParseCerts(r.Line)
		if err != nil {
			return nil, fmt.Errorf("read the boot service's former CAs: %w", err)
		}
		v.history = append(v.history, former...)
	}
	v.Digest = digest(v.Bundle)
	return v, nil
}

// Sign makes a certificate for a key whose owner keeps it, PEM. Behind it comes
// what makes whoever trusts only the CA before believe it.
func (v *View) Sign(key any, request pki.Request, now time.Time) ([]byte, error) {
	cert, err := v.CA.Sign(key, request, now)
	if err != nil {
		return nil, err
	}
	return append(cert, blocks(v.Line, 1)...), nil
}

// Shown is what the boot service's server shows behind a certificate of its own:
// the CA, which machines know by its hash only, and the line of those before.
func (v *View) Shown(cert []byte) []byte {
	return append(append(bytes.Clone(cert), v.CertPEM...), v.Line...)
}

// Retired says that a certificate is one that a CA signed which is trusted no more.
func (v *View) Retired(cert *x509.Certificate) bool {
	for _, ca := range v.history {
		if !v.trusts(ca) && cert.CheckSignatureFrom(ca) == nil {
			return true
		}
	}
	return false
}

func (v *View) trusts(ca *x509.Certificate) bool {
	return bytes.Contains(v.Bundle, pki.EncodeCert(ca))
}

// Find is the CA with a hash (SHA-256 of its certificate), of those that are
// trusted or that the line leads back to; nil if it is none of them.
func (v *View) Find(hash []byte) *x509.Certificate {
	for _, ca := range v.history {
		if bytes.Equal(hash, sum(ca)) {
			return ca
		}
	}
	return nil
}
