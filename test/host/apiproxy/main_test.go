// Package apiproxy runs the node-local balancer against API servers in
// namespaces of their own, and takes their machines off the network without a
// word, as a machine does that loses its power.
package apiproxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/test/netns"
)

// serving is set in a process that is an API server; its value is its address.
// Its certificate and key are in the working directory.
const serving = "SLIPWAY_TEST_API_SERVER"

func TestMain(m *testing.M) {
	addr := os.Getenv(serving)
	if addr == "" {
		os.Exit(netns.Main(m))
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, addr) // to /readyz too
	})
	server := &http.Server{Addr: addr, Handler: handler, ReadHeaderTimeout: time.Minute}
	fmt.Fprintln(os.Stderr, server.ListenAndServeTLS("ca.crt", "ca.key"))
	os.Exit(1)
}

// makeCertificate writes ca.crt and ca.key, good for the addresses.
func makeCertificate(t *testing.T, dir string, addrs ...net.IP) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: addrs, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.crt": {Type: "CERTIFICATE", Bytes: cert}, "ca.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
