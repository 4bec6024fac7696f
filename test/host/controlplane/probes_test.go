package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/controlplane/addons"
	"slipway/nodeinit/supervise"
)

// testEncryption looks for a secret's text in all that etcd has written: it
// must not be there, and a config map's must.
func testEncryption(t *testing.T) {
	kubectl(t, "", "create", "secret", "generic", "s", "--from-literal=k=correct-horse-battery")
	kubectl(t, "", "create", "configmap", "c", "--from-literal=k=stapled-in-the-open")
	var data strings.Builder
	err := filepath.Walk("/var/lib/etcd", func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		data.Write(text)
		return err
	})
	must(t, err)
	if strings.Contains(data.String(), "correct-horse-battery") {
		t.Error("etcd's files hold the secret in clear")
	}
	want(t, kubectl(t, "", "get", "secret", "s", "-o", "jsonpath={.data.k}"), "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5")
	if !strings.Contains(data.String(), "stapled-in-the-open") {
		t.Error("etcd's files do not hold the config map: this test looks in the wrong place")
	}
}

func nodeRequest(t *testing.T, key *ecdsa.PrivateKey, node string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}},
	}, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// testAnonymous asks without any credential.
func testAnonymous(t *testing.T) {
	ca, err := os.ReadFile("/etc/kubernetes/pki/ca.crt")
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	for path, want := range map[string]int{
		"/readyz": 200, "/livez": 200, "/version": 401, "/api/v1/namespaces": 401, "/metrics": 401,
	} {
		response, err := client.Get("https://192.0.2.10:6443" + path)
		must(t, err)
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("GET %s without credentials: %d, want %d", path, response.StatusCode, want)
		}
	}
}

// testDNS asks CoreDNS where the service's endpoints are: no kube-proxy runs here.
func testDNS(t *testing.T) {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, "192.0.2.10:53")
	}}
	for name, want := range map[string]string{
		"kubernetes.default.svc.cluster.local.":   "10.96.0.1",
		"kube-dns.kube-system.svc.cluster.local.": "10.96.0.10",
	} {
		got, err := resolver.LookupHost(t.Context(), name)
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("lookup %s = %v, %v, want %s", name, got, err, want)
		}
	}
}

func addonsUnit(t *testing.T) supervise.Unit {
	t.Helper()
	return addons.Units(identity)[0]
}
