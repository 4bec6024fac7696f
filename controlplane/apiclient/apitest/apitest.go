// Package apitest serves a test's own API over mutual TLS, as the real API
// server is served. Only tests import it.
package apitest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/controlplane/pki"
)

// Access is apiclient.Access, which may be converted from it.
type Access struct{ Server, CAFile, CertFile, KeyFile string }

// Serve serves handler until the test ends, to whoever has a certificate of
// its CA, and says how to reach it with one.
func Serve(t *testing.T, handler http.Handler) Access {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now(), time.Hour)
	must(t, err)
	leaf, err := ca.Issue(pki.Request{
		CommonName: "test", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Client: true, Server: true, Validity: time.Hour,
	}, time.Now())
	must(t, err)
	pair, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.VerifyClientCertIfGiven}
	server.StartTLS()
	t.Cleanup(server.Close)

	dir := t.TempDir()
	access := Access{server.URL, filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	must(t, os.WriteFile(access.CAFile, ca.CertPEM, 0o644))
	must(t, os.WriteFile(access.CertFile, leaf.CertPEM, 0o644))
	must(t, os.WriteFile(access.KeyFile, leaf.KeyPEM, 0o600))
	return access
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
