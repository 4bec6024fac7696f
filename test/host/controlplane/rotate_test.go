package controlplane

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"slipway/configs/kubeconfig"
	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

const leafFile = "/etc/kubernetes/pki/apiserver.crt"

// testRenewal asks for a shorter life: every certificate is due. The programs
// take the new ones up without a restart.
func testRenewal(t *testing.T, n *node, cfg *machine.Config) {
	before, pids := served(t), n.pids()
	cfg.Cluster.CertificateLifetime = 30 * time.Minute // the test's CAs end in an hour
	n.apply(cfg)
	eventually(t, "the API server to serve its new certificate", func() bool { return served(t) != before })
	for _, name := range []string{"etcd", "kube-apiserver", "kube-scheduler", "coredns"} {
		if pids[name] != n.pids()[name] {
			t.Errorf("%s was restarted", name)
		}
	}
	kubectl(t, "", "create", "configmap", "written-after-renewal")
}

// served is the serial number of the certificate that the API server serves.
func served(t *testing.T) string {
	t.Helper()
	return peerOf(t, "127.0.0.1:6443").SerialNumber.String()
}

// testNewKey has the first key be another, and all Secrets written with it.
func testNewKey(t *testing.T, n *node, cfg *machine.Config) {
	const old, next = "k8s:enc:secretbox:v1:key-1:", "k8s:enc:secretbox:v1:key-2:"
	kubectl(t, "", "create", "secret", "generic", "before", "--from-literal=k=v")
	want(t, etcdData(t), old)
	if strings.Contains(etcdData(t), next) {
		t.Fatal("there is a Secret of a key that does not exist yet")
	}
	key := make([]byte, 32)
	rand.Read(key)
	keys := *cfg.ControlPlaneKeys
	keys.EncryptionKeys = append([]machine.EncryptionKey{{Name: "key-2", Secret: secret.New(base64.StdEncoding.EncodeToString(key))}}, keys.EncryptionKeys...)
	keys.RewriteSecrets = true
	cfg.ControlPlaneKeys = &keys
	pid := n.pids()["kube-apiserver"]
	n.apply(cfg) // until the unit secrets is done
	if n.pids()["kube-apiserver"] != pid {
		t.Error("the API server was restarted")
	}
	want(t, etcdData(t), next)

	last := keys
	last.EncryptionKeys, last.RewriteSecrets = keys.EncryptionKeys[:1], false
	cfg.ControlPlaneKeys = &last
	n.apply(cfg)
	kubectl(t, "", "get", "secrets", "-A")
}

// testNewAccountKey goes through the three steps of a replacement of the key that
// signs tokens. A pod's token of the step before is good in each, and the first
// one is no more in the last.
func testNewAccountKey(t *testing.T, n *node, cfg *machine.Config) {
	_, next, err := pki.NewKey()
	must(t, err)
	old := cfg.ControlPlaneKeys.ServiceAccount
	token := func() string { return strings.TrimSpace(kubectl(t, "", "create", "token", "default", "-n", "demo")) }
	good := func(token string) bool {
		out, err := try("/tmp/nobody.kubeconfig", "", "auth", "whoami", "--token="+token)
		return err == nil && strings.Contains(out, "system:serviceaccount:demo:default")
	}
	pathOf(t, "nobody", kubeconfig.Config{User: "nobody", Token: secret.New("none")}, cfg)
	first := token()
	var last string
	for _, step := range []struct {
		signer secret.String
		other  string
		first  bool // the first token is good
	}{{old, public(t, next), true}, {secret.New(string(next)), public(t, []byte(old.Reveal())), true}, {secret.New(string(next)), "", false}} {
		keys := *cfg.ControlPlaneKeys
		keys.ServiceAccount, keys.OtherAccounts = step.signer, step.other
		cfg.ControlPlaneKeys = &keys
		before := token()
		n.apply(cfg)
		if last = token(); !good(last) || !good(before) || good(first) != step.first {
			t.Errorf("with the other key %q: good are the token of now: %v, of the step before: %v, the first: %v", step.other, good(last), good(before), good(first))
		}
	}
	if signedAlike(first, last) {
		t.Error("the last token is signed by the first key: the test proves nothing")
	}
}

// signedAlike says whether two tokens name the same key in their header.
func signedAlike(one, other string) bool {
	a, _, _ := strings.Cut(one, ".")
	b, _, _ := strings.Cut(other, ".")
	return a == b
}

// public is the public half of a private key, both PEM.
func public(t *testing.T, private []byte) string {
	t.Helper()
	key, err := pki.ParseKey(private)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// testNewCAs goes through the three steps of a replacement for the CAs of etcd,
// of Kubernetes and of the front proxy at once: both are trusted, the new one
// signs, the old one goes. The API answers after each.
func testNewCAs(t *testing.T, n *node, cfg *machine.Config) {
	cluster, etcd, front := newCA(t, "kubernetes"), newCA(t, "etcd"), newCA(t, "front-proxy")
	keys, store := *cfg.ControlPlaneKeys, *cfg.Etcd
	cfg.ControlPlaneKeys, cfg.Etcd = &keys, &store
	step := func(name string) {
		t.Helper()
		n.apply(cfg)
		eventually(t, "the API to be written to after the step: "+name, func() bool {
			_, err := try("/tmp/admin.kubeconfig", "", "create", "configmap", name)
			return err == nil
		})
	}
	before := cfg.Cluster.CA
	cfg.Cluster.CA += string(cluster.CertPEM)
	store.CA += string(etcd.CertPEM)
	keys.FrontProxyCA += string(front.CertPEM)
	step("both-are-trusted")

	keys.CAKey, store.CAKey, keys.FrontProxyKey = private(cluster), private(etcd), private(front)
	writeAdmin(t, cfg)
	step("the-new-one-signs")
	newCert, err := pki.ParseCert(cluster.CertPEM)
	must(t, err)
	eventually(t, "the API server to serve a certificate of the new CA", func() bool {
		return peerOf(t, "127.0.0.1:6443").CheckSignatureFrom(newCert) == nil
	})
	w := *cfg
	w.Cluster.CA = string(cluster.CertPEM) + before // as a worker gets them
	must(t, join(t, &w).CheckSignatureFrom(newCert))

	cfg.Cluster.CA, store.CA, keys.FrontProxyCA = string(cluster.CertPEM), string(etcd.CertPEM), string(front.CertPEM)
	writeAdmin(t, cfg)
	step("the-old-one-is-gone")
	text, err := os.ReadFile(leafFile)
	must(t, err)
	cert, err := pki.ParseCert(text)
	must(t, err)
	must(t, cert.CheckSignatureFrom(newCert))
}

// eventually polls until done says so, for as long as programs take to look at
// their files, and some.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited two minutes for %s", what)
		case <-tick.C:
		}
	}
}

func (n *node) pids() map[string]int {
	pids := map[string]int{}
	for _, s := range n.supervisor.Status() {
		pids[s.Name] = s.PID
	}
	return pids
}
