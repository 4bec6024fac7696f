package etcdchaos

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/etcd"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
	"slipway/test/payload"
)

// brand is an etcd as somebody builds and configures it.
type brand struct {
	program string
	scheme  string
	tls     *tls.Config // of clients; nil: none
	// configure writes what a member reads below its directory and returns
	// its arguments. peers are the members that it finds; the first finds none.
	configure func(m *member, peers []etcd.Member, first bool) []string
}

// ours is etcd as a control-plane machine runs it: the program, its
// configuration and certificates, with the paths below the member's own directory.
func ours(t *testing.T) brand {
	t.Helper()
	ca, err := pki.NewCA("etcd", time.Now(), time.Hour)
	must(t, err)
	return brand{
		program: filepath.Join(payload.Link(t, "etcd"), "etcd"),
		scheme:  "https",
		tls:     clientTLS(t, ca),
		configure: func(m *member, peers []etcd.Member, first bool) []string {
			paths := etcd.Paths{Data: m.dir + "/data", Config: m.dir + "/etcd.yaml", PKI: m.dir + "/pki", Local: "127.0.0.1:2379"}
			text, err := etcd.Program{Paths: paths, Settings: settings(m), Measured: measured, New: first, Members: peers}.ConfigFile()
			must(t, err)
			must(t, proc.WriteFiles(append(certificates(t, m, ca, paths.PKI), proc.File{Path: paths.Config, Mode: 0o600, Data: text})))
			return []string{"--config-file=" + paths.Config}
		},
	}
}

// measured is what a computer without much else to do would measure. It is the
// same on every run, so that the test takes as long on every run.
var measured = etcd.Measured{Fsync: 5 * time.Millisecond, RoundTrip: time.Millisecond, Sign: 50 * time.Microsecond}

func settings(m *member) *etcd.Settings {
	s := &etcd.Settings{Cluster: "chaos", Name: m.name, Address: m.address, Generation: 1}
	for _, other := range m.c.members[:3] { // so many are there to be at any time
		s.Members = append(s.Members, etcd.Place{Name: other.name, Address: other.address})
	}
	return s
}

// certificates are those of the member, as the machine's config makes them.
func certificates(t *testing.T, m *member, ca pki.CA, dir string) []proc.File {
	t.Helper()
	cfg := &machine.Config{Etcd: &machine.Etcd{CA: string(ca.CertPEM), CAKey: secret.New(string(ca.KeyPEM))}}
	files := []proc.File{{Path: dir + "/ca.crt", Mode: 0o644, Data: ca.CertPEM}}
	for _, l := range etcd.Leaves(cfg, machine.Identity{Hostname: m.name, Address: m.address}) {
		l.Path = filepath.Join(dir, filepath.Base(l.Path))
		cert, key, err := l.Mint(time.Now(), time.Hour)
		must(t, err)
		files = append(files, cert, key)
	}
	return files
}

func clientTLS(t *testing.T, ca pki.CA) *tls.Config {
	t.Helper()
	leaf, err := ca.Issue(pki.Request{CommonName: "client", Client: true, Validity: time.Hour}, time.Now())
	must(t, err)
	pair, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
}

// theirs is another etcd, told nothing but what no member can do without.
func theirs(*testing.T) brand {
	return brand{
		program: *peer,
		scheme:  "http",
		configure: func(m *member, peers []etcd.Member, first bool) []string {
			client, peer := m.url(2379), m.url(2380)
			initial := []string{m.name + "=" + peer}
			for _, p := range peers {
				initial = append(initial, p.Name+"="+p.PeerURL)
			}
			state := map[bool]string{true: "new", false: "existing"}[first]
			return []string{
				"--name=" + m.name, "--data-dir=" + m.dir + "/data",
				"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
				"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
				"--initial-cluster-state=" + state, "--initial-cluster=" + strings.Join(initial, ","),
			}
		},
	}
}

func (m *member) url(port int) string {
	return fmt.Sprintf("%s://%s:%d", m.c.brand.scheme, m.address, port)
}
