package worker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/nodeinit/proc"
)

// testCA signs certificates for these tests.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newTestCA(t *testing.T, name string) testCA {
	t.Helper()
	ca := testCA{cert: &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	ca.key, ca.pem = ca.sign(t, ca.cert)
	return ca
}

// sign makes a key and a certificate for it, PEM; one of its own if ca has no key yet.
func (ca testCA) sign(t *testing.T, template *x509.Certificate) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := ca.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (ca testCA) leaf(t *testing.T, end time.Time) string {
	t.Helper()
	_, text := ca.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "system:node:a"}, SerialNumber: big.NewInt(2), NotAfter: end})
	return "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + text // as the kubelet's file: more than the certificate
}

func TestCredential(t *testing.T) {
	kubelet := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer kubelet.Close()
	before, now := newTestCA(t, "CA of before"), newTestCA(t, "CA of now")
	soon := time.Now().Add(time.Minute)
	old, good, ended := before.leaf(t, soon), now.leaf(t, soon), now.leaf(t, time.Now().Add(-time.Minute))
	for name, test := range map[string]struct {
		ca          string // besides the one that signs now
		asked, made string // files; empty: not there
		kept        bool
		ready       string // what keeps the kubelet from being ready, after Prepare
	}{
		"none yet":                           {"", "", "", false, "no such file"},
		"as it should be":                    {"", good, "", true, ""},
		"the other CA is trusted too":        {before.pem, good, "", true, ""},
		"the other CA signed":                {before.pem, old, "", false, "no such file"},
		"a CA that is gone signed":           {"", old, "", false, "no such file"},
		"it has ended":                       {"", ended, "", false, "no such file"},
		"half a file":                        {"", good[:200], "", false, "no such file"},
		"made here":                          {"", "", good, false, ""},
		"made here, asked for before":        {before.pem, old, good, false, ""},
		"made here by the CA of before":      {before.pem, "", old, false, "CA of before, and CA of now signs now"},
		"made here, and renewed meanwhile":   {before.pem, good, old, true, ""},
		"made here, and all of it is of old": {before.pem, old, old, false, "CA of before, and CA of now signs now"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := credential{Asked: filepath.Join(dir, "current.pem"), CA: now.pem + test.ca, Healthz: proc.HTTPProbe{URL: kubelet.URL}}
			write(t, filepath.Join(dir, renewedName), old)
			write(t, filepath.Join(dir, "stored.pem"), test.asked)
			if test.asked != "" {
				if err := os.Symlink("stored.pem", c.Asked); err != nil {
					t.Fatal(err)
				}
			}
			if test.made != "" {
				c.Made = filepath.Join(dir, "made.crt")
				write(t, c.Made, test.made)
			}
			for range 2 { // it may be repeated
				if err := c.Prepare(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Lstat(c.Asked); (err == nil) != test.kept || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("kept: %v", err)
			}
			err := c.Probe(t.Context())
			if (err == nil) != (test.ready == "") || err != nil && !strings.Contains(err.Error(), test.ready) {
				t.Errorf("ready: %v, want %q", err, test.ready)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCredentialNeedsTheKubelet(t *testing.T) {
	kubelet := httptest.NewServer(http.NotFoundHandler())
	kubelet.Close()
	if err := (credential{Healthz: proc.HTTPProbe{URL: kubelet.URL}}).Probe(t.Context()); err == nil {
		t.Error("ready without a kubelet")
	}
}

func TestAnotherCAIsAnotherKubelet(t *testing.T) {
	cfg, id := config("worker")
	one, same := kubelet(cfg, id), kubelet(cfg, id)
	cfg.Cluster.CA += "another\n"
	two := kubelet(cfg, id)
	equal := one.Service.(*proc.Process).Equal
	if !equal(same.Service) || equal(two.Service) {
		t.Error("the kubelet is not restarted exactly when the CA changes")
	}
}
