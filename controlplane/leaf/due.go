package leaf

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"time"
)

// skew is how far a clock may have been set back since a leaf was made without
// that calling for a new one. It is less than certificates are backdated.
const skew = 5 * time.Minute

// notice is what a new leaf needs to get to its users, of an old one's life:
// client-go looks at the files every five minutes, who renews them every minute.
const notice = 6 * time.Minute

// Look is how often it is looked at whether leaves are due.
const Look = time.Minute

// margin is how much of its life a leaf has left when it is due: a third, and
// the time to the next look, so that it is renewed before no more than a third is
// left. Of a short life it is more, so that nobody is left with an ended one.
func margin(lifetime time.Duration) time.Duration {
	return min(max(lifetime/3+Look, notice), lifetime*2/3)
}

// Aged reports whether it is time for another leaf in place of one that somebody
// else signed, who chose how long it lasts: by what is left of its own life.
func Aged(cert *x509.Certificate, now time.Time) bool {
	return cert.NotAfter.Sub(now) <= margin(cert.NotAfter.Sub(cert.NotBefore))
}

// Due says why it is time for a new leaf in place of the one in certPEM and
// keyPEM, which are nil if there is none; "" if that one is good. A leaf is
// good while a third of lifetime is left at the next look too (see margin), if it is what
// the request asks for and the CA's signing certificate signed it. The error is of the CA.
func (l Leaf) Due(certPEM, keyPEM []byte, now time.Time, lifetime time.Duration) (string, error) {
	signer, err := l.CA.Signer()
	if err != nil {
		return "", fmt.Errorf("check %s: %w", l.CertFile(), err)
	}
	if certPEM == nil || keyPEM == nil {
		return "there is none", nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return err.Error(), nil
	}
	cert := pair.Leaf
	switch {
	case cert.CheckSignatureFrom(signer) != nil:
		return "another CA signs now", nil
	case !l.holds(cert):
		return "its names or uses are others now", nil
	}
	return dueAt(cert, signer.NotAfter, now, lifetime), nil
}

// dueAt judges a leaf's times. A clock that was wrong when it was made shows in
// them: it begins in the future, or lasts longer than leaves do.
func dueAt(cert *x509.Certificate, end, now time.Time, lifetime time.Duration) string {
	left := cert.NotAfter.Sub(now)
	switch {
	case now.Before(cert.NotBefore):
		return "it is not valid yet"
	case left > lifetime+skew:
		return "it lasts too long"
	case left > margin(lifetime):
		return ""
	case !cert.NotAfter.Before(end) && left > 0:
		return "" // a new one could not last longer: its CA ends with it
	}
	return fmt.Sprintf("%s are left", left.Round(time.Minute))
}

// holds says whether cert is what the request asks for. Lists are compared in
// order, as package pki writes them.
func (l Leaf) holds(cert *x509.Certificate) bool {
	r := l.Request
	uses := func(use x509.ExtKeyUsage) bool { return slices.Contains(cert.ExtKeyUsage, use) }
	return cert.Subject.CommonName == r.CommonName &&
		slices.Equal(cert.Subject.Organization, r.Organizations) &&
		slices.Equal(cert.DNSNames, r.DNSNames) &&
		slices.EqualFunc(cert.IPAddresses, r.IPs, net.IP.Equal) &&
		uses(x509.ExtKeyUsageClientAuth) == r.Client && uses(x509.ExtKeyUsageServerAuth) == r.Server
}
