package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"
)

// backdate is how long before now a certificate becomes valid, for clocks that
// run behind.
const backdate = 10 * time.Minute

// wrong is how far before the beginning of its CA a clock may be and still sign:
// time zones make hours, what is worth an error is years.
const wrong = 24 * time.Hour

// CA is a certificate authority: its self-signed certificate and its key, PEM.
// While it is being replaced CertPEM holds the certificates of the old one and
// of the new: both are trusted, and the one that the key belongs to signs.
type CA struct {
	CertPEM []byte
	KeyPEM  []byte
}

// Leaf is a certificate with its key, PEM.
type Leaf struct {
	CertPEM []byte
	KeyPEM  []byte
}

// Request says what a certificate is to hold.
type Request struct {
	CommonName    string
	Organizations []string
	DNSNames      []string
	IPs           []net.IP
	Client        bool          // it may authenticate a client
	Server        bool          // it may authenticate a server
	Validity      time.Duration // from now; never beyond the CA's own end
}

// NewCA makes a CA whose common name is name. It may sign leaves only, no CAs.
func NewCA(name string, now time.Time, validity time.Duration) (CA, error) {
	return makeCA(name, now, validity, false)
}

// NewLine makes a CA that may vouch for its successor.
func NewLine(name string, now time.Time, validity time.Duration) (CA, error) {
	return makeCA(name, now, validity, true)
}

func makeCA(name string, now time.Time, validity time.Duration, vouches bool) (CA, error) {
	key, keyPEM, err := NewKey()
	if err != nil {
		return CA{}, fmt.Errorf("make CA %s: %w", name, err)
	}
	cert := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        !vouches,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return CA{}, fmt.Errorf("make CA %s: %w", name, err)
	}
	return CA{CertPEM: encodeCert(der), KeyPEM: keyPEM}, nil
}

// Vouch makes a certificate, PEM, of the next CA's key that ca signs: whoever
// trusts ca believes with it what next signed. ca must be of NewLine.
func (ca CA) Vouch(next CA) ([]byte, error) {
	parent, key, err := ca.signer()
	if err != nil {
		return nil, err
	}
	heir, err := next.Signer()
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		Subject: heir.Subject, SubjectKeyId: heir.SubjectKeyId,
		NotBefore: heir.NotBefore, NotAfter: earlier(heir.NotAfter, parent.NotAfter),
		KeyUsage: heir.KeyUsage, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, heir.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("vouch for CA %s: %w", heir.Subject.CommonName, err)
	}
	return encodeCert(der), nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Issue makes a key and a certificate for it.
func (ca CA) Issue(r Request, now time.Time) (Leaf, error) {
	key, keyPEM, err := NewKey()
	if err != nil {
		return Leaf{}, fmt.Errorf("issue certificate for %s: %w", r.CommonName, err)
	}
	certPEM, err := ca.Sign(key.Public(), r, now)
	if err != nil {
		return Leaf{}, err
	}
	return Leaf{CertPEM: certPEM, KeyPEM: keyPEM}, nil
}

// Sign makes a certificate, PEM, for a public key whose private key its owner
// keeps. The caller has checked that the owner has it: CheckCSR does so.
func (ca CA) Sign(pub crypto.PublicKey, r Request, now time.Time) ([]byte, error) {
	parent, key, err := ca.signer()
	if err != nil {
		return nil, err
	}
	cert, err := template(r, now, parent)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %q: %w", r.CommonName, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", r.CommonName, err)
	}
	return encodeCert(der), nil
}

// Signer is the certificate, of those in CertPEM, that the key belongs to.
func (ca CA) Signer() (*x509.Certificate, error) {
	cert, _, err := ca.signer()
	return cert, err
}

func (ca CA) signer() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certs, err := ParseCerts(ca.CertPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("read CA: %w", err)
	}
	name := certs[0].Subject.CommonName
	key, err := ParseKey(ca.KeyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("read CA %s: %w", name, err)
	}
	for _, cert := range certs {
		if key.PublicKey.Equal(cert.PublicKey) {
			return cert, key, nil
		}
	}
	return nil, nil, fmt.Errorf("read CA %s: the key belongs to none of its %d certificates", name, len(certs))
}

// ClockError says that a CA signed nothing, since it is not valid by the clock.
type ClockError struct {
	Now      time.Time // what the clock says
	From, To time.Time // the CA's life
}

func (e *ClockError) Error() string {
	what := "this machine's clock is wrong"
	if !e.Now.Before(e.To) {
		what += ", or the CA has ended"
	}
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	return fmt.Sprintf("%s: it says %s, and the CA is valid from %s to %s", what, day(e.Now), day(e.From), day(e.To))
}

func template(r Request, now time.Time, ca *x509.Certificate) (*x509.Certificate, error) {
	if r.CommonName == "" || r.Validity <= 0 || !r.Client && !r.Server {
		return nil, errors.New("a certificate needs a common name, a validity and a use")
	}
	if now.Before(ca.NotBefore.Add(-wrong)) || !now.Before(ca.NotAfter) {
		return nil, &ClockError{Now: now, From: ca.NotBefore, To: ca.NotAfter}
	}
	cert := &x509.Certificate{
		Subject:               pkix.Name{CommonName: r.CommonName, Organization: r.Organizations},
		DNSNames:              r.DNSNames,
		IPAddresses:           r.IPs,
		NotBefore:             now.Add(-backdate),
		NotAfter:              earlier(now.Add(r.Validity), ca.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	if r.Client {
		cert.ExtKeyUsage = append(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if r.Server {
		cert.ExtKeyUsage = append(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	return cert, nil
}

// EncodeCert returns a certificate's PEM form.
func EncodeCert(cert *x509.Certificate) []byte { return encodeCert(cert.Raw) }

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der})
}
