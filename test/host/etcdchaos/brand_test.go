package etcdchaos

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/etcd"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
)

// brand is an etcd as somebody builds and configures it.
type brand struct {
	program string
	scheme  string
	tls     *tls.Config // of clients; nil: none
	// configure writes what a member reads below its directory and returns
	// its arguments. first is the member that others will join.
	configure func(m *member, first bool) []string
}

// ours is etcd as a control-plane machine runs it: the program, the flags and
// the certificates, with the paths below the member's own directory.
func ours(t *testing.T) brand {
	t.Helper()
	now := time.Now()
	ca, err := pki.NewCA("etcd", now, time.Hour)
	must(t, err)
	return brand{
		program: payload(t),
		scheme:  "https",
		tls:     clientTLS(t, ca, now),
		configure: func(m *member, first bool) []string {
			cfg := config(m, ca, first)
			id := machine.Identity{Hostname: m.name, Address: m.address, Link: "eth0"}
			files := etcd.Files(cfg)
			for _, l := range etcd.Leaves(cfg, id) {
				cert, key, err := l.Mint(now, time.Hour)
				must(t, err)
				files = append(files, cert, key)
			}
			for i := range files {
				files[i].Path = m.path(files[i].Path)
			}
			must(t, proc.WriteFiles(files))
			args := etcd.Units(cfg, id)[0].Service.(*proc.Process).Args
			for i := range args {
				args[i] = m.path(args[i])
			}
			return args
		},
	}
}

// path moves the paths of a node below the member's directory.
func (m *member) path(text string) string {
	return strings.NewReplacer("/etc/kubernetes", m.dir+"/etc", "/var/lib/etcd", m.dir+"/data").Replace(text)
}

func config(m *member, ca pki.CA, first bool) *machine.Config {
	cfg := &machine.Config{
		Hostname: m.name, Role: machine.ControlPlane,
		Cluster: machine.Cluster{Name: "chaos"},
		Etcd:    &machine.Etcd{CA: string(ca.CertPEM), CAKey: secret.New(string(ca.KeyPEM)), Generation: 1},
	}
	for _, other := range m.c.members[:3] { // so many are there to be at any time
		cfg.Cluster.ControlPlanes = append(cfg.Cluster.ControlPlanes, other.address)
		cfg.Etcd.Members = append(cfg.Etcd.Members, machine.EtcdMember{Name: other.name, Address: other.address})
	}
	if first {
		cfg.Etcd.Bootstrap = &machine.EtcdBootstrap{Token: secret.New("chaos")}
	}
	return cfg
}

func clientTLS(t *testing.T, ca pki.CA, now time.Time) *tls.Config {
	t.Helper()
	leaf, err := ca.Issue(pki.Request{CommonName: "client", Client: true, Validity: time.Hour}, now)
	must(t, err)
	pair, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
}

// payload links the built payload binary by the name of the program that it
// then is. SLIPWAY_IMAGE names another image than the one make image builds.
func payload(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SLIPWAY_IMAGE")
	if dir == "" {
		dir = "../../../.build/image"
	}
	path, err := filepath.Abs(filepath.Join(dir, "bin", "multicall"))
	must(t, err)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("needs the payload binary %s: make image builds it", path)
	}
	link := filepath.Join(t.TempDir(), "etcd")
	must(t, os.Symlink(path, link))
	return link
}

// theirs is another etcd, told nothing but what no member can do without.
func theirs(*testing.T) brand {
	return brand{
		program: *peer,
		scheme:  "http",
		configure: func(m *member, first bool) []string {
			client, peer := m.url(2379), m.url(2380)
			state := map[bool]string{true: "new", false: "existing"}[first]
			return []string{
				"--name=" + m.name, "--data-dir=" + m.dir + "/data",
				"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
				"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
				"--initial-cluster-state=" + state,
			}
		},
	}
}

func (m *member) url(port int) string {
	return fmt.Sprintf("%s://%s:%d", m.c.brand.scheme, m.address, port)
}
