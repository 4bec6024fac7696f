package controlplane

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/leaf"
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
	files, err := Files(cfg, id)
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
		f.Data = bytes.ReplaceAll(f.Data, clusterID(t, cfg), []byte("HASH OF THE CA"))
		if !strings.Contains(f.Path, "/pki/") {
			texts = append(texts, f)
		}
	}
	proctest.Golden(t, "testdata/files.txt", proctest.Contents(texts))
}

func clusterID(t *testing.T, cfg *machine.Config) []byte {
	t.Helper()
	ca, err := pki.ParseCert([]byte(cfg.Etcd.CA))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(pki.CertHash(ca))
}

// TestCertificates: who every certificate is for, who signed it and what for.
func TestCertificates(t *testing.T) {
	cfg, id := config(t)
	var b strings.Builder
	for _, f := range append(authorities(t, cfg, id), mint(t, Leaves(cfg, id))...) {
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

// authorities are the files with CA certificates.
func authorities(t *testing.T, cfg *machine.Config, id machine.Identity) (list []proc.File) {
	for _, f := range filesOf(t, cfg, id) {
		if strings.HasSuffix(f.Path, ".crt") && f.Path != "/etc/kubernetes/pki/machine-ca.crt" {
			list = append(list, f)
		}
	}
	return list
}

// mint returns the certificates' files.
func mint(t *testing.T, leaves []leaf.Leaf) (list []proc.File) {
	t.Helper()
	for _, l := range leaves {
		cert, key, err := l.Mint(now, machine.DefaultCertificateLifetime)
		if err != nil {
			t.Fatal(err)
		}
		if key.Mode != 0o600 {
			t.Errorf("%s is %s", key.Path, key.Mode)
		}
		list = append(list, cert)
	}
	return list
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
	cfg.Etcd.Members = append(cfg.Etcd.Members, machine.EtcdMember{Name: "prod-cp-2", Address: netip.MustParseAddr("192.0.2.11")})
	page := proctest.Page(Units(cfg, id), nil)
	for _, flag := range []string{"--goaway-chance=", "--leader-elect\n", "generation 1, with others"} {
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

// TestFilesAreTheSameAgain: applying a config again changes nothing on disk.
func TestFilesAreTheSameAgain(t *testing.T) {
	cfg, id := config(t)
	if diff := cmp.Diff(filesOf(t, cfg, id), filesOf(t, cfg, id)); diff != "" {
		t.Errorf("files differ:\n%s", diff)
	}
}

// TestTopologies: where the API server finds etcd, and what it waits for.
func TestTopologies(t *testing.T) {
	members := []machine.EtcdMember{
		{Name: "prod-etcd-1", Address: netip.MustParseAddr("192.0.2.21")}, {Name: "prod-etcd-2", Address: netip.MustParseAddr("192.0.2.22")},
	}
	for name, test := range map[string]struct {
		change func(*machine.Config)
		page   []string // parts of it
		not    []string
	}{
		"dedicated": {
			func(c *machine.Config) { c.Etcd.Members = members },
			[]string{"unit kube-apiserver after certificates\n", "--etcd-servers=https://192.0.2.21:2379,https://192.0.2.22:2379\n", "SLIPWAY_ETCD_GENERATION=1", "pki/etcd/ca.crt"},
			[]string{"unit etcd"},
		},
		"external": {
			func(c *machine.Config) {
				c.Etcd = &machine.Etcd{CA: c.Etcd.CA, External: &machine.EtcdExternal{
					Endpoints: []string{"https://a:2379", "https://b:2379"}, Cert: "theirs", Key: secret.New("their key"),
				}}
			},
			[]string{"unit kube-apiserver after certificates\n", "--etcd-servers=https://a:2379,https://b:2379\n", "pki/etcd/ca.crt", "apiserver-etcd-client.key -rw-------"},
			[]string{"unit etcd", "GENERATION"},
		},
		"etcd only": {
			func(c *machine.Config) { c.Role, c.ControlPlaneKeys = machine.EtcdOnly, nil },
			[]string{"unit certificates", "unit etcd", "pki/etcd/ca.crt"},
			[]string{"kube-apiserver", "pki/ca.crt", "addons"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, id := config(t)
			test.change(cfg)
			page := proctest.Page(Units(cfg, id), filesOf(t, cfg, id))
			for _, part := range test.page {
				if !strings.Contains(page, part) {
					t.Errorf("no %q in:\n%s", part, page)
				}
			}
			for _, part := range test.not {
				if strings.Contains(page, part) {
					t.Errorf("%q in:\n%s", part, page)
				}
			}
			mint(t, Leaves(cfg, id))
		})
	}
}

// TestTwoCAs: while a CA is replaced, leaves of both verify against what every
// program trusts, and the new one signs.
func TestTwoCAs(t *testing.T) {
	cfg, id := config(t)
	old := mint(t, Leaves(cfg, id))
	for _, ca := range []struct {
		name string
		cert *string
		key  *secret.String
	}{
		{"kubernetes", &cfg.Cluster.CA, &cfg.ControlPlaneKeys.CAKey}, {"etcd", &cfg.Etcd.CA, &cfg.Etcd.CAKey},
		{"front-proxy", &cfg.ControlPlaneKeys.FrontProxyCA, &cfg.ControlPlaneKeys.FrontProxyKey},
	} {
		cert, key := newCA(t, ca.name)
		*ca.cert, *ca.key = *ca.cert+cert, key
	}
	trusted := map[string]string{} // CA's name: file
	signer := ""
	for _, f := range authorities(t, cfg, id) {
		cert, err := pki.ParseCert(f.Data)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f.Path, "/signer.crt") {
			signer = string(f.Data)
		} else {
			trusted[cert.Subject.CommonName] = string(f.Data)
		}
	}
	for _, f := range append(old, mint(t, Leaves(cfg, id))...) {
		leaf, err := pki.ParseCert(f.Data)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(trusted[leaf.Issuer.CommonName]))
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: leaf.ExtKeyUsage}); err != nil {
			t.Errorf("%s: %v", f.Path, err)
		}
	}
	if certs, err := pki.ParseCerts([]byte(signer)); err != nil || len(certs) != 1 || !strings.HasSuffix(cfg.Cluster.CA, signer) {
		t.Errorf("the controller manager signs with %d certificates (%v), want the new one", len(certs), err)
	}
}

// TestTwoServiceAccountKeys: while the key is replaced, tokens of both are
// accepted, and the API server is another service, so that it is restarted.
func TestTwoServiceAccountKeys(t *testing.T) {
	cfg, id := config(t)
	before := Units(cfg, id)
	cfg.ControlPlaneKeys.OtherAccounts = "public key\n"
	page := proctest.Page(Units(cfg, id), filesOf(t, cfg, id))
	for _, part := range []string{
		"--service-account-signing-key-file=/etc/kubernetes/pki/sa.key\n",
		"--service-account-key-file=/etc/kubernetes/pki/sa.key\n",
		"--service-account-key-file=/etc/kubernetes/pki/sa-other.pub\n",
		"reads once: /etc/kubernetes/pki/sa-other.pub",
		"/etc/kubernetes/pki/sa-other.pub -rw-r--r--",
	} {
		if !strings.Contains(page, part) {
			t.Errorf("no %q in\n%s", part, page)
		}
	}
	for i, u := range Units(cfg, id) {
		process, ok := u.Service.(*proc.Process)
		if ok && process.Equal(before[i].Service) == (u.Name == "kube-apiserver") {
			t.Errorf("%s stays as it is: %v", u.Name, u.Name == "kube-apiserver")
		}
	}
}

func TestServesTheVirtualIP(t *testing.T) {
	cfg, id := config(t)
	cfg.Cluster.VirtualIP = netip.MustParseAddr("192.0.2.9")
	cfg.Cluster.Endpoint = "https://192.0.2.9:6443"
	for _, l := range Leaves(cfg, id) {
		if strings.HasSuffix(l.Path, "/apiserver") && fmt.Sprint(l.Request.IPs) != "[10.96.0.1 192.0.2.10 127.0.0.1 192.0.2.9]" {
			t.Errorf("the API server serves %s", l.Request.IPs)
		}
	}
}

func TestErrors(t *testing.T) {
	tests := map[string]func(*machine.Config){
		"no controlPlaneKeys": func(c *machine.Config) { c.ControlPlaneKeys = nil },
		"no etcd":             func(c *machine.Config) { c.Etcd = nil },
		"bootstrap token":     func(c *machine.Config) { c.Cluster.BootstrapToken = secret.New("abcdef") },
		"read CA":             func(c *machine.Config) { c.Cluster.CA = "" },
		"belongs to none":     func(c *machine.Config) { c.ControlPlaneKeys.CAKey = c.Etcd.CAKey },
	}
	for want, spoil := range tests {
		cfg, id := config(t)
		spoil(cfg)
		if _, err := Files(cfg, id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Files = %v, want an error about %q", err, want)
		}
	}
}
