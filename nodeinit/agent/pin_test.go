package agent

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

func chain(t *testing.T, pair tls.Certificate) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

// pinned are anchors that stay what they are.
func pinned(cas ...*x509.Certificate) func() [][sha256.Size]byte {
	var anchors [][sha256.Size]byte
	for _, ca := range cas {
		anchors = append(anchors, sha256.Sum256(ca.Raw))
	}
	return func() [][sha256.Size]byte { return anchors }
}

func TestTrust(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	good := chain(t, ca.pair(t, "boot", "slipway:server"))
	foreign := chain(t, other.pair(t, "boot", "slipway:server"))
	for _, tt := range []struct {
		name, host string
		pin        *testCA
		chain      []*x509.Certificate
		want       string // empty: trusted
	}{
		{name: "the pinned CA", host: "127.0.0.1", pin: ca, chain: good},
		{name: "another CA", host: "127.0.0.1", pin: ca, chain: foreign, want: "expected the CA pin"},
		{name: "another host", host: "10.0.0.9", pin: ca, chain: good, want: "10.0.0.9"},
		{name: "the CA is not shown", host: "127.0.0.1", pin: ca, chain: good[:1], want: "expected the CA pin"},
		{name: "the pinned CA beside a leaf it did not sign", host: "127.0.0.1", pin: ca,
			chain: []*x509.Certificate{foreign[0], good[1]}, want: "verify the boot service's certificate"},
		{name: "a leaf pinned as if it were a CA", host: "127.0.0.1", pin: &testCA{cert: good[0]}, chain: good, want: "expected the CA pin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			trust := &trust{host: tt.host, clock: time.Now, anchors: pinned(tt.pin.cert)}
			err := trust.verify(tls.ConnectionState{PeerCertificates: tt.chain})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if _, seen := trust.authority(); (seen == nil) != (tt.want == "") {
				t.Errorf("the CA is known: %v", seen)
			}
		})
	}
}

// TestTrustBeforeTheClockIsSet: a machine that thinks it is another year
// enrols; once its clock is set, dates count.
func TestTrustBeforeTheClockIsSet(t *testing.T) {
	ca := newCA(t)
	certs := chain(t, ca.pair(t, "boot", "slipway:server"))
	for _, cert := range certs { // as seen by a machine a year behind, or ahead
		cert.NotBefore, cert.NotAfter = cert.NotBefore.AddDate(1, 0, 0), cert.NotAfter.AddDate(1, 0, 0)
	}
	trust := &trust{host: "127.0.0.1", clock: time.Now, anchors: pinned(ca.cert)}
	if err := trust.verify(tls.ConnectionState{PeerCertificates: certs}); err != nil {
		t.Errorf("before: %v", err)
	}
	trust.clockIsSet()
	var invalid x509.CertificateInvalidError
	if err := trust.verify(tls.ConnectionState{PeerCertificates: certs}); !errors.As(err, &invalid) {
		t.Errorf("after: %v", err)
	}
}

// TestClockBehind: what only the CA can have made since shows that the clock is
// wrong; neither an old certificate of the CA's does, nor a new one of anybody else.
func TestClockBehind(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	shown := func(by *testCA) []*x509.Certificate {
		return append(chain(t, by.pair(t, "boot", "slipway:server")), ca.cert)
	}
	for _, tt := range []struct {
		name   string
		ahead  time.Duration // the machine's clock
		chain  []*x509.Certificate
		behind bool
	}{
		{"not valid yet", -1000 * time.Hour, shown(ca), true},
		{"not valid yet, of another CA", -1000 * time.Hour, shown(other), false},
		{"ended", 1000 * time.Hour, shown(ca), false},
	} {
		now := func() time.Time { return time.Now().Add(tt.ahead) }
		trust := &trust{host: "127.0.0.1", clock: now, anchors: pinned(ca.cert)}
		trust.clockIsSet()
		err := trust.verify(tls.ConnectionState{PeerCertificates: tt.chain})
		if err == nil || errors.Is(err, errClockBehind) != tt.behind {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
