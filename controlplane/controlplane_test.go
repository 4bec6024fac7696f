package controlplane

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/proc/proctest"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newCA(t *testing.T, name string) (cert string, key secret.String) {
	t.Helper()
	ca, err := pki.NewCA(name, now, 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return string(ca.CertPEM), secret.New(string(ca.KeyPEM))
}

func config(t *testing.T) (*machine.Config, machine.Identity) {
	t.Helper()
	keys := &machine.ControlPlaneKeys{
		ServiceAccount: secret.New("account key\n"), EncryptionKeys: []machine.EncryptionKey{{Name: "key-1", Secret: secret.New("c2VjcmV0")}},
	}
	cfg := &machine.Config{
		Hostname: "prod-cp-1", Role: machine.ControlPlane, ControlPlaneKeys: keys,
		Etcd: &machine.Etcd{Generation: 1, Bootstrap: &machine.EtcdBootstrap{Token: secret.New("t")},
			Members: []machine.EtcdMember{{Name: "prod-cp-1", Address: netip.MustParseAddr("192.0.2.10")}}},
		Cluster: machine.Cluster{
			Name: "prod", Endpoint: "https://api.example.com:6443",
			ControlPlanes: []netip.Addr{netip.MustParseAddr("192.0.2.10")},
			PodSubnet:     netip.MustParsePrefix("10.244.0.0/16"), ServiceSubnet: netip.MustParsePrefix("10.96.0.0/16"),
			DNSDomain: "cluster.local", MachineCA: "machine CA\n", BootstrapToken: secret.New("abcdef.0123456789abcdef"),
		},
	}
	cfg.Cluster.CA, keys.CAKey = newCA(t, "kubernetes")
	cfg.Etcd.CA, cfg.Etcd.CAKey = newCA(t, "etcd")
	keys.FrontProxyCA, keys.FrontProxyKey = newCA(t, "front-proxy")
	id := machine.Identity{
		Hostname: "prod-cp-1", Address: netip.MustParseAddr("192.0.2.10"), Link: "eth0",
		Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.10")},
	}
	return cfg, id
}

func filesOf(t *testing.T, cfg *machine.Config, id machine.Identity) []proc.File {
	t.Helper()
	files, err := Files(cfg, id, now)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestPage: what runs on a control-plane machine beside the worker's units.
func TestPage(t *testing.T) {
	cfg, id := config(t)
	proctest.Golden(t, "testdata/units.txt", proctest.Page(Units(cfg, id), filesOf(t, cfg, id)))
}

// TestContents: the files as text, but for keys and certificates.
func TestContents(t *testing.T) {
	cfg, id := config(t)
	var texts []proc.File
	for _, f := range filesOf(t, cfg, id) {
		if !strings.Contains(f.Path, "/pki/") {
			texts = append(texts, f)
		}
	}
	proctest.Golden(t, "testdata/files.txt", proctest.Contents(texts))
}

// TestCertificates: who every certificate is for, who signed it and what for.
func TestCertificates(t *testing.T) {
	cfg, id := config(t)
	var b strings.Builder
	for _, f := range filesOf(t, cfg, id) {
		if !strings.HasSuffix(f.Path, ".crt") || f.Path == "/etc/kubernetes/pki/machine-ca.crt" {
			continue
		}
		cert, err := pki.ParseCert(f.Data)
		if err != nil {
			t.Fatalf("%s: %v", f.Path, err)
		}
		fmt.Fprintf(&b, "%s\n  %s, signed by %s, until %s\n", f.Path, cert.Subject, cert.Issuer.CommonName, cert.NotAfter.Format(time.DateOnly))
		if len(cert.ExtKeyUsage) > 0 {
			fmt.Fprintf(&b, "  uses %d\n", cert.ExtKeyUsage) // 1: server, 2: client (crypto/x509)
		}
		if len(cert.DNSNames)+len(cert.IPAddresses) > 0 {
			fmt.Fprintf(&b, "  for %s %s\n", cert.DNSNames, cert.IPAddresses)
		}
	}
	proctest.Golden(t, "testdata/certificates.txt", b.String())
}

func TestKeysAreNotForOthers(t *testing.T) {
	cfg, id := config(t)
	for _, f := range filesOf(t, cfg, id) {
		holds := strings.Contains(string(f.Data), "PRIVATE KEY") || strings.Contains(string(f.Data), "c2VjcmV0") ||
			strings.Contains(string(f.Data), "MDEyMzQ1Njc4OWFiY2RlZg==") // the bootstrap token's secret
		if holds && f.Mode != 0o600 {
			t.Errorf("%s holds a secret and is %s", f.Path, f.Mode)
		}
	}
}

func TestSeveralControlPlanes(t *testing.T) {
	cfg, id := config(t)
	cfg.Cluster.ControlPlanes = append(cfg.Cluster.ControlPlanes, netip.MustParseAddr("192.0.2.11"))
	cfg.Etcd.Bootstrap = nil
	page := proctest.Page(Units(cfg, id), nil)
	for _, flag := range []string{"--goaway-chance=", "--leader-elect=true", "--heartbeat-interval=500", "--election-timeout=5000", "--initial-cluster-state=existing"} {
		if !strings.Contains(page, flag) {
			t.Errorf("no %s", flag)
		}
	}
}

func TestWorkerHasNone(t *testing.T) {
	cfg, id := config(t)
	cfg.Role, cfg.ControlPlaneKeys = machine.Worker, nil
	if units := Units(cfg, id); units != nil {
		t.Errorf("a worker has %d units", len(units))
	}
	if files := filesOf(t, cfg, id); files != nil {
		t.Errorf("a worker has %d files", len(files))
	}
}

func TestErrors(t *testing.T) {
	tests := map[string]func(*machine.Config){
		"no controlPlaneKeys": func(c *machine.Config) { c.ControlPlaneKeys = nil },
		"bootstrap token":     func(c *machine.Config) { c.Cluster.BootstrapToken = secret.New("abcdef") },
		"etcd/server.crt":     func(c *machine.Config) { c.Etcd.CAKey = secret.New("") },
		"front-proxy-client":  func(c *machine.Config) { c.ControlPlaneKeys.FrontProxyCA = "" },
		"pki/apiserver.crt":   func(c *machine.Config) { c.Cluster.CA = "" },
	}
	for want, spoil := range tests {
		cfg, id := config(t)
		spoil(cfg)
		if _, err := Files(cfg, id, now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Files = %v, want an error about %q", err, want)
		}
	}
}
