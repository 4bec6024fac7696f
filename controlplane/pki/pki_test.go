package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func newCA(t *testing.T, validity time.Duration) (CA, *x509.Certificate) {
	t.Helper()
	ca, err := NewCA("test CA", noon, validity)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ParseCert(ca.CertPEM)
	if err != nil {
		t.Fatal(err)
	}
	return ca, cert
}

func TestIssuedCertificateHoldsWhatWasAsked(t *testing.T) {
	ca, root := newCA(t, 24*time.Hour)
	leaf, err := ca.Issue(Request{
		CommonName: "system:node:a", Organizations: []string{"system:nodes"},
		DNSNames: []string{"a"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1)},
		Client: true, Server: true, Validity: time.Hour,
	}, noon)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ParseCert(leaf.CertPEM)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "system:node:a" || !cmp.Equal(cert.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("subject is %v", cert.Subject)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		for _, name := range []string{"a", "10.0.0.1"} {
			_, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{usage}})
			if err != nil {
				t.Errorf("verify %s for %v: %v", name, usage, err)
			}
		}
	}
	key, err := ParseKey(leaf.KeyPEM)
	if err != nil || !key.PublicKey.Equal(cert.PublicKey) {
		t.Errorf("the leaf's key does not belong to its certificate: %v", err)
	}
}

func TestLeafNeverOutlivesItsCA(t *testing.T) {
	ca, root := newCA(t, time.Hour)
	leaf, err := ca.Issue(Request{CommonName: "a", Client: true, Validity: 48 * time.Hour}, noon)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ParseCert(leaf.CertPEM)
	if err != nil {
		t.Fatal(err)
	}
	if !cert.NotAfter.Equal(root.NotAfter) {
		t.Errorf("the leaf ends %v, its CA %v", cert.NotAfter, root.NotAfter)
	}
	if _, err := ca.Issue(Request{CommonName: "a", Client: true, Validity: time.Hour}, noon.Add(2*time.Hour)); err == nil {
		t.Error("an ended CA signed")
	}
}

func TestLeafIsNoCA(t *testing.T) {
	ca, root := newCA(t, time.Hour)
	leaf, err := ca.Issue(Request{CommonName: "a", Client: true, Validity: time.Hour}, noon)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := CA(leaf).Issue(Request{CommonName: "b", Client: true, Validity: time.Minute}, noon)
	if err != nil {
		return // refusing to sign is as good
	}
	cert, err := ParseCert(forged.CertPEM)
	if err != nil {
		t.Fatal(err)
	}
	between, err := ParseCert(leaf.CertPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	middle.AddCert(between)
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err == nil {
		t.Error("a certificate signed by a leaf was believed")
	}
}

func TestIncompleteRequestsAreRefused(t *testing.T) {
	ca, _ := newCA(t, time.Hour)
	for name, r := range map[string]Request{
		"no name":     {Client: true, Validity: time.Hour},
		"no use":      {CommonName: "a", Validity: time.Hour},
		"no validity": {CommonName: "a", Client: true},
	} {
		if _, err := ca.Issue(r, noon); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestCheckCSR(t *testing.T) {
	good, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := NewCSR(pkix.Name{CommonName: "m"}, good)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := NewCSR(pkix.Name{CommonName: "m"}, other)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), der...)
	forged[len(forged)-1] ^= 1

	for name, test := range map[string]struct {
		der  []byte
		want string // in the error; empty: accepted
	}{
		"good":       {der, ""},
		"P-384":      {p384, "not ECDSA P-256"},
		"RSA":        {rsaCSR, "not ECDSA P-256"},
		"forged":     {forged, "check certificate request"},
		"empty":      {nil, "check certificate request"},
		"oversized":  {make([]byte, MaxCSR+1), "more than"},
		"extra tail": {append(append([]byte(nil), der...), 0), "trailing"},
	} {
		key, err := CheckCSR(test.der)
		switch {
		case test.want == "" && (err != nil || !key.Equal(good.Public())):
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: error is %v, want %q in it", name, err, test.want)
		}
	}
}

func FuzzCheckCSR(f *testing.F) {
	key, _, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	der, err := NewCSR(pkix.Name{CommonName: "m"}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		if key, err := CheckCSR(der); (key == nil) == (err == nil) {
			t.Errorf("key %v with error %v", key, err)
		}
	})
}

func FuzzParsePEM(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if cert, err := ParseCert(text); (cert == nil) == (err == nil) {
			t.Errorf("certificate %v with error %v", cert, err)
		}
		if key, err := ParseKey(text); (key == nil) == (err == nil) {
			t.Errorf("key read with error %v", err)
		}
	})
}

// TestTwoCertificates: while a CA is replaced, the certificate that the key
// belongs to signs, wherever it stands in the list.
func TestTwoCertificates(t *testing.T) {
	a, certA := newCA(t, time.Hour)
	b, certB := newCA(t, time.Hour)
	for _, bundle := range [][]byte{append(append([]byte(nil), a.CertPEM...), b.CertPEM...), append(append([]byte("\n"), b.CertPEM...), a.CertPEM...)} {
		for _, test := range []struct {
			key  []byte
			want *x509.Certificate
		}{{a.KeyPEM, certA}, {b.KeyPEM, certB}} {
			ca := CA{CertPEM: bundle, KeyPEM: test.key}
			leaf, err := ca.Issue(Request{CommonName: "a", Client: true, Validity: time.Hour}, noon)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := ParseCert(leaf.CertPEM)
			if err != nil {
				t.Fatal(err)
			}
			if err := cert.CheckSignatureFrom(test.want); err != nil {
				t.Error(err)
			}
			if signer, err := ca.Signer(); err != nil || !signer.Equal(test.want) {
				t.Errorf("Signer = %v, %v", signer, err)
			}
		}
	}
	c, _ := newCA(t, time.Hour)
	_, err := CA{CertPEM: append(append([]byte(nil), a.CertPEM...), b.CertPEM...), KeyPEM: c.KeyPEM}.Signer()
	if err == nil || !strings.Contains(err.Error(), "belongs to none of its 2 certificates") {
		t.Errorf("with another key: %v", err)
	}
}

func TestParseCerts(t *testing.T) {
	ca, _ := newCA(t, time.Hour)
	for text, want := range map[string]int{
		"": 0, "junk": 0, string(ca.CertPEM): 1, string(ca.CertPEM) + "\n" + string(ca.CertPEM) + "\n": 2,
		string(ca.CertPEM) + "junk": 0, string(ca.CertPEM) + string(ca.KeyPEM): 0,
	} {
		if certs, err := ParseCerts([]byte(text)); len(certs) != want || (err == nil) != (want > 0) {
			t.Errorf("ParseCerts(%.40q) = %d certificates, %v, want %d", text, len(certs), err, want)
		}
	}
}

// TestClockYearsOff: nothing is signed that nobody would take; the message says why.
func TestClockYearsOff(t *testing.T) {
	ca, _ := newCA(t, 1000*time.Hour)
	for _, tt := range []struct {
		now  time.Time
		want string
	}{
		{noon.AddDate(-6, 0, 0), "this machine's clock is wrong: it says 2020-06-01, and the CA is valid from 2026-06-01 to 2026-07-13"},
		{noon.AddDate(6, 0, 0), "this machine's clock is wrong, or the CA has ended: it says 2032-06-01, and the CA is valid from 2026-06-01 to 2026-07-13"},
	} {
		_, err := ca.Issue(Request{CommonName: "a", Client: true, Validity: time.Hour}, tt.now)
		var clock *ClockError
		if !errors.As(err, &clock) || clock.Error() != tt.want {
			t.Errorf("Issue = %v, want %s", err, tt.want)
		}
	}
}
