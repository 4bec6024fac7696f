package authority

import (
	"crypto/sha256"
	"crypto/x509"

	"slipway/configs/enroll"
)

// Holder is who has a certificate of the CA: a machine, or a person by a context.
type Holder struct {
	Name string // for people
	// Trusts is the digest of the CAs that it said it trusts last.
	Trusts string
	// Behind is what it has yet to do in this phase with what it has, in words;
	// empty: nothing.
	Behind string
	// Missing is why it does nothing at the moment, in words; empty: it is there.
	Missing string
	// After is what becomes of it when it is not waited for, in words.
	After string
	// Person is a person, who has to do with certificates and not with machines' trust.
	Person bool
}

// Waiting is somebody who is waited for.
type Waiting struct {
	Name, For, After string
	Missing          bool // nothing is heard of them
}

// Waiting are those whom the rotation waits for in its phase: nobody, once a
// person hurried it. Who is missing is waited for only before the old CA retires:
// that he trusts only the old one does no harm before, and afterwards nobody
// needs him.
func (r Record) Waiting(holders []Holder) (all []Waiting) {
	if r.Rotation == nil || r.Rotation.Hurried {
		return nil
	}
	use, now := r.Rotation.Phase == Use, digest(r.Trusted())
	for _, h := range holders {
		what := h.Behind
		if h.Trusts != now {
			what = "its certificate of the new CA"
			if !use {
				what = "the CAs that it is to trust"
			}
		}
		missing := h.Missing != ""
		if what == "" || h.Person && !use || missing && !use {
			continue
		}
		if missing {
			what = h.Missing
		}
		all = append(all, Waiting{Name: h.Name, For: what, After: h.After, Missing: missing})
	}
	return all
}

func digest(bundle []byte) string { return enroll.TrustDigest(bundle) }

func sum(cert *x509.Certificate) []byte {
	hash := sha256.Sum256(cert.Raw)
	return hash[:]
}
