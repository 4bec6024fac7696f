package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"slipway/configs/machine"
	"slipway/controlplane/addons"
	"slipway/nodeinit/supervise"
)

// testEncryption looks for a secret's text in all that etcd has written: it
// must not be there, and a config map's must.
func testEncryption(t *testing.T) {
	kubectl(t, "", "create", "secret", "generic", "s", "--from-literal=k=correct-horse-battery")
	kubectl(t, "", "create", "configmap", "c", "--from-literal=k=stapled-in-the-open")
	data := etcdData(t)
	if strings.Contains(data, "correct-horse-battery") {
		t.Error("etcd's files hold the secret in clear")
	}
	want(t, kubectl(t, "", "get", "secret", "s", "-o", "jsonpath={.data.k}"), "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5")
	if !strings.Contains(data, "stapled-in-the-open") {
		t.Error("etcd's files do not hold the config map: this test looks in the wrong place")
	}
}

// etcdData is all that etcd has written.
func etcdData(t *testing.T) string {
	t.Helper()
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
	return data.String()
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

// testMetrics asks each program for its figures: without a certificate, with
// one of a machine's component, and with one that may see them.
func testMetrics(t *testing.T) {
	if conn, err := net.Dial("tcp", "127.0.0.1:2381"); err == nil {
		conn.Close()
		t.Error("etcd answers where no certificate is asked for")
	}
	kubectl(t, metricsReader, "apply", "-f", "-")
	for _, test := range []struct{ url, ca, nobody, stranger, reader string }{
		{"https://192.0.2.10:6443/metrics", "ca", "401", "403 coredns", "200 kube-scheduler"},
		{"https://127.0.0.1:10257/metrics", "ca", "403", "403 coredns", "200 kube-scheduler"},
		{"https://127.0.0.1:10259/metrics", "ca", "403", "403 coredns", "200 kube-scheduler"},
		{"https://192.0.2.10:2379/metrics", "etcd/ca", "refused", "refused coredns", "200 etcd/server"},
		{"https://192.0.2.10:2379/health", "etcd/ca", "refused", "refused coredns", "200 etcd/server"},
	} {
		for _, asked := range []string{test.nobody, test.stranger, test.reader} {
			want, cert, _ := strings.Cut(asked, " ")
			if got := ask(t, test.url, test.ca, cert); got != want {
				t.Errorf("GET %s with certificate %q: %s, want %s", test.url, cert, got, want)
			}
		}
	}
}

const metricsReader = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"metrics"},
	"rules":[{"nonResourceURLs":["/metrics"],"verbs":["get"]}]}
---
{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"metrics"},
	"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"metrics"},
	"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"system:kube-scheduler"}]}`

// ask returns the status code, or "refused" if the connection is.
func ask(t *testing.T, url, ca, cert string) string {
	t.Helper()
	const pki = "/etc/kubernetes/pki/"
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	text, err := os.ReadFile(pki + ca + ".crt")
	must(t, err)
	config.RootCAs.AppendCertsFromPEM(text)
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(pki+cert+".crt", pki+cert+".key")
		must(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return "refused"
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	return strconv.Itoa(response.StatusCode)
}

// peerOf is the certificate that is served at addr.
func peerOf(t *testing.T, addr string) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // it is what is looked at
	must(t, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func addonsUnit(cfg *machine.Config) supervise.Unit { return addons.Units(cfg, identity)[0] }
