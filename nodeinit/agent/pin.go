package agent

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// PinError says that a server has no part of the CA the machine was booted
// with, or of what came after that. Nothing was sent to it.
type PinError struct {
	Server string
	Want   string   // the pin on the kernel command line, or the CA that came after it
	Seen   []string // what the server showed, its own certificate first
}

func (e *PinError) Error() string {
	return fmt.Sprintf("%s is not the boot service that started this machine: expected the CA pin %s, it showed %s; nothing was sent",
		e.Server, e.Want, strings.Join(e.Seen, ", "))
}

// trust checks servers against the CAs that the machine trusts.
type trust struct {
	host  string           // the server's name or address, as its certificate must say
	clock func() time.Time // what the machine's says
	// anchors are the CAs, by hash, at least one: store.anchors.
	anchors func() [][sha256.Size]byte

	mu      sync.Mutex
	ca      *x509.Certificate // the first anchor that was seen; nil before the first connection
	clockOK bool              // the machine's clock was set: dates count
}

// client is a TLS configuration that talks to the pinned boot service only.
func (t *trust) client(certificate func() (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The roots are not known before the server shows them: verify does
		// all that the default would have done, and the pin.
		InsecureSkipVerify: true,
		VerifyConnection:   t.verify,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if certificate == nil {
				return &tls.Certificate{}, nil
			}
			return certificate()
		},
	}
}

func (t *trust) verify(state tls.ConnectionState) error {
	chain, anchors := state.PeerCertificates, t.anchors()
	known := anchored(chain, anchors)
	if len(known) == 0 {
		return t.pinError(chain, anchors[0])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now(chain[0])
	err := t.check(chain, known, now)
	if from := chain[0].NotBefore; err != nil && now.Before(from) && t.check(chain, known, from) == nil {
		return fmt.Errorf("%w: it says %s, and the boot service has a certificate that was made after %s: %w",
			errClockBehind, now.UTC().Format(time.RFC3339), from.UTC().Format(time.RFC3339), err)
	}
	if err != nil {
		return fmt.Errorf("verify the boot service's certificate: %w", err)
	}
	t.ca = known[0]
	return nil
}

// errClockBehind is of a server that has all that the boot service has, but its
// certificate is not valid yet. Such a one only the CA could make, and has made
// by now: the clock is wrong. Of one that seems to have ended nothing follows.
// Its key may be stolen, and who has it must not set the clock back.
var errClockBehind = errors.New("the machine's clock is behind")

func (t *trust) check(chain, roots []*x509.Certificate, at time.Time) error {
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: t.host, Roots: pool(roots), Intermediates: pool(chain[1:]), CurrentTime: at,
	})
	return err
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// now is the time to check dates at. A machine without a battery thinks it is
// 1970: until its clock is set by the pinned server itself, any time at which
// the certificate is valid will do. When it was made, so were all above it.
func (t *trust) now(leaf *x509.Certificate) time.Time {
	now := t.clock()
	if t.clockOK || inLife(leaf, now) {
		return now
	}
	return leaf.NotBefore
}

// anchored are the CAs of a chain that are anchors, in the anchors' order.
func anchored(chain []*x509.Certificate, anchors [][sha256.Size]byte) (known []*x509.Certificate) {
	for _, anchor := range anchors {
		for _, cert := range chain {
			if sha256.Sum256(cert.Raw) == anchor && cert.IsCA {
				known = append(known, cert)
			}
		}
	}
	return known
}

func (t *trust) pinError(chain []*x509.Certificate, want [sha256.Size]byte) error {
	e := &PinError{Server: t.host, Want: hex.EncodeToString(want[:])}
	for _, cert := range chain {
		sum := sha256.Sum256(cert.Raw)
		e.Seen = append(e.Seen, hex.EncodeToString(sum[:]))
	}
	return e
}

// authority is the CA by which the boot service was checked; an error before it was.
func (t *trust) authority() (*x509.Certificate, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ca == nil {
		return nil, errors.New("the boot service's CA was not seen yet")
	}
	return t.ca, nil
}

// clockIsSet makes dates count from now on.
func (t *trust) clockIsSet() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clockOK = true
}
