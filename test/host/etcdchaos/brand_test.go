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
	// its arguments. first is the member that others will join; peers are all
	// members, as name=URL.
	configure func(m *member, first bool, peers []string) []string
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
		configure: func(m *member, first bool, peers []string) []string {
			cfg := config(m, ca)
			id := machine.Identity{Hostname: m.name, Address: m.address, Link: "eth0"}
			files := []proc.File{{Path: etcd.CAFile, Mode: 0o644, Data: ca.CertPEM}}
			for _, l := range etcd.Leaves(cfg, id) {
				cert, key, err := l.Mint(now, time.Hour)
				must(t, err)
				files = append(files, cert, key)
			}
			for i := range files {
				files[i].Path = m.path(files[i].Path)
			}
			text, err := m.program(first, peers).ConfigFile()
			must(t, err)
			file := proc.File{Path: m.dir + "/etc/etcd.yaml", Mode: 0o600, Data: text}
			must(t, proc.WriteFiles(append(files, file)))
			return []string{"--config-file=" + file.Path}
		},
	}
}

// path moves the paths of a node below the member's directory.
func (m *member) path(text string) string {
	return strings.NewReplacer("/etc/kubernetes", m.dir+"/etc", "/var/lib/etcd", m.dir+"/data").Replace(text)
}

func config(m *member, ca pki.CA) *machine.Config {
	return &machine.Config{
		Hostname: m.name, Role: machine.ControlPlane,
		Cluster: machine.Cluster{Name: "chaos"},
		Etcd:    &machine.Etcd{CA: string(ca.CertPEM), CAKey: secret.New(string(ca.KeyPEM)), Generation: 1},
	}
}

// program is how the unit etcd-member has etcd run on a fast machine.
func (m *member) program(first bool, peers []string) etcd.Program {
	paths := etcd.NodePaths()
	paths.Data, paths.PKI = m.path(paths.Data), m.path(paths.PKI)
	p := etcd.Program{Paths: paths, New: first, Settings: &etcd.Settings{Cluster: "chaos", Name: m.name, Address: m.address, Generation: 1}}
	for _, other := range m.c.members[:3] { // so many are there to be at any time
		p.Settings.Members = append(p.Settings.Members, etcd.Place{Name: other.name, Address: other.address})
	}
	for _, peer := range peers {
		name, url, _ := strings.Cut(peer, "=")
		p.Members = append(p.Members, etcd.Member{Name: name, PeerURL: url})
	}
	return p
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
		configure: func(m *member, first bool, peers []string) []string {
			client, peer := m.url(2379), m.url(2380)
			state := map[bool]string{true: "new", false: "existing"}[first]
			return []string{
				"--name=" + m.name, "--data-dir=" + m.dir + "/data",
				"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
				"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
				"--initial-cluster-state=" + state, "--initial-cluster=" + strings.Join(peers, ","),
			}
		},
	}
}

func (m *member) url(port int) string {
	return fmt.Sprintf("%s://%s:%d", m.c.brand.scheme, m.address, port)
}
