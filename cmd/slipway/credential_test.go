package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"slipway/configs/kubeconfig"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

// issueFor makes a CA and a certificate of it for a client and a server at
// 127.0.0.1, all PEM.
func issueFor(t *testing.T, name string) (ca, cert, key []byte) {
	t.Helper()
	authority, err := pki.NewCA("test", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := authority.Issue(pki.Request{
		CommonName: name, Client: true, Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Validity: time.Hour,
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority.CertPEM, leaf.CertPEM, leaf.KeyPEM
}

func serverTLS(t *testing.T, ca, cert, key []byte) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
}

func kubeconfigFor(t *testing.T, server string, ca, cert, key []byte) []byte {
	t.Helper()
	text, err := kubeconfig.Config{
		Cluster: "prod", Server: server, CA: string(ca), User: "ann", Cert: string(cert), Key: secret.New(string(key)),
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestReadCredentials(t *testing.T) {
	ca, cert, key := issueFor(t, "ann")
	c, err := readCredentials(kubeconfigFor(t, "https://192.0.2.1:6443", ca, cert, key))
	if err != nil || c.server != "https://192.0.2.1:6443" || string(c.ca) != string(ca) || string(c.cert) != string(cert) || string(c.key) != string(key) {
		t.Errorf("%v, %+v", err, c)
	}
	for name, text := range map[string]string{"junk": "{", "empty": "", "not base64": "clusters: [{}]\nusers: [{user: {client-key-data: '!'}}]\n"} {
		if _, err := readCredentials([]byte(text)); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestDeleteNode(t *testing.T) {
	for status, want := range map[int]string{http.StatusOK: "", http.StatusNotFound: "", http.StatusForbidden: "403 Forbidden; `kubectl delete node a`"} {
		err := deleteNode(t.Context(), kubeAPI(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }), "a")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d: %v", status, err)
		}
	}
}
