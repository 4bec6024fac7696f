// Package etcd says how a machine runs its member of the cluster's etcd: which
// units, which files, and (Decide) what the member is to do next. The member is
// the upstream program, supervised; beside it runs package member, which acts
// on the decisions and writes the program's configuration. Package controlplane
// calls this one.
//
// It starts, asks and writes nothing.
package etcd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"slipway/configs/machine"
	"slipway/controlplane/leaf"
	"slipway/controlplane/pki"
	"slipway/controlplane/renew"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	// Name is the unit of the upstream program: what needs etcd comes after it.
	Name = "etcd"
	// MemberUnit is the unit that decides about it.
	MemberUnit = "etcd-member"
	// APIServerEndpoint is where this machine's API server reaches the member:
	// a socket of root's, without TLS. It opens a connection for each of its
	// hundred resources. Where processors are short, their handshakes fail for
	// want of time, all are tried again, and neither of the two comes to rest.
	APIServerEndpoint = "unix://" + socket
	// CAFile holds the CA of everything that speaks to etcd.
	CAFile = dir + "/ca.crt"

	local  = "127.0.0.1:2379"
	socket = "/run/slipway/etcd-clients.sock"
	dir    = "/etc/kubernetes/pki/etcd"

	program = "/usr/bin/slipway-init"

	// unlimited is a unit that may take as long as it needs to be ready: it
	// waits for people, or for other machines, and says so.
	unlimited = 100 * 365 * 24 * time.Hour
)

// Units returns the member's units; none if the machine runs no member. Both
// start anew with another generation, and when a lone member gets company, for
// whose sake its clock is another.
func Units(cfg *machine.Config) []supervise.Unit {
	if !cfg.IsMember() {
		return nil
	}
	paths := NodePaths()
	env := []string{fmt.Sprintf("SLIPWAY_ETCD=generation %d, %s", cfg.Etcd.Generation, company(cfg.Etcd.Members))}
	return []supervise.Unit{
		{Name: MemberUnit, After: []string{renew.Name}, Service: &proc.Process{
			Name:         MemberUnit,
			Path:         program,
			Args:         []string{MemberUnit},
			Env:          env,
			Ready:        proc.SocketProbe{Path: paths.Socket, URL: ReadyPath},
			ReadyTimeout: unlimited,
			OOMScoreAdj:  -999,
		}},
		{Name: Name, After: []string{MemberUnit}, Service: &proc.Process{
			Name:         Name,
			Path:         "/usr/bin/etcd",
			Args:         []string{"--config-file=" + paths.Config},
			Env:          env,
			Reads:        []string{CAFile},
			Ready:        proc.HTTPSProbe{URL: "https://" + local + "/readyz", CAFile: CAFile, CertFile: paths.PKI + "/server.crt", KeyFile: paths.PKI + "/server.key"},
			ReadyTimeout: unlimited,
			OOMScoreAdj:  -999,
			// Its heartbeats must not wait behind an API server that starts.
			CPUWeight: 2000,
		}},
	}
}

func company(members []machine.EtcdMember) string {
	if len(members) > 1 {
		return "with others"
	}
	return "alone"
}

// ReadyPath is where, on its socket, the unit etcd-member says whether etcd may
// start; if not, the answer is what it waits for.
const ReadyPath = "/ready"

// Paths says where things are; on a node as NodePaths says.
type Paths struct {
	Data     string // holds a folder for each generation, and what is remembered of them
	Config   string // etcd's configuration file
	Settings string // Settings, as JSON
	PKI      string // the folder of ca.crt, server.crt, server.key, peer.crt, peer.key
	Socket   string // where EtcdService answers
	Boot     string // the socket on which the agent passes calls on to the boot service
	Etcdutl  string // the upstream program
	Local    string // host:port at which the member answers this machine
	Clients  string // the socket on which it answers this machine's API server
}

// NodePaths are a node's.
func NodePaths() Paths {
	return Paths{
		Data: "/var/lib/etcd", Config: "/etc/kubernetes/etcd.yaml", Settings: "/etc/kubernetes/etcd-member.json", PKI: dir,
		Socket: "/run/slipway/etcd.sock", Boot: "/run/slipway/boot.sock", Etcdutl: "/usr/bin/etcdutl", Local: local, Clients: socket,
	}
}

// Settings is what the unit etcd-member knows of the machine config. It reads
// them again when the file changes.
type Settings struct {
	Cluster       string // its name
	ClusterID     string // of the first of its CAs, hex
	Name          string // of the machine
	Address       netip.Addr
	Generation    int
	Members       []Place
	Token         string // of the leave to begin the generation; empty: none
	Snapshot      string // SHA-256, hex
	Recover       bool
	AllowSlowDisk bool
}

// Place is a machine that is to run a member.
type Place struct {
	Name    string
	Address netip.Addr
}

// PeerURL is where other members reach this one.
func (p Place) PeerURL() string { return url(p.Address, 2380) }

// ClientURL is where clients on other machines reach it.
func (p Place) ClientURL() string { return url(p.Address, 2379) }

// Self is this machine's place.
func (s *Settings) Self() Place { return Place{s.Name, s.Address} }

// Files returns what the member's and its clients' certificates are checked
// against, the CA or both while it is being replaced, and the member's
// settings; nothing if the machine runs no member.
func Files(cfg *machine.Config, id machine.Identity) ([]proc.File, error) {
	if !cfg.IsMember() {
		return nil, nil
	}
	settings, err := settings(cfg, id)
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(settings, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write etcd's settings: %w", err)
	}
	return []proc.File{
		{Path: CAFile, Mode: 0o644, Data: []byte(cfg.Etcd.CA)},
		{Path: NodePaths().Settings, Mode: 0o600, Data: append(text, '\n')},
	}, nil
}

func settings(cfg *machine.Config, id machine.Identity) (*Settings, error) {
	e := cfg.Etcd
	ca, err := pki.ParseCert([]byte(e.CA))
	if err != nil {
		return nil, fmt.Errorf("read etcd's CA: %w", err)
	}
	s := &Settings{
		Cluster: cfg.Cluster.Name, ClusterID: pki.CertHash(ca), Name: id.Hostname, Address: id.Address,
		Generation: e.Generation, AllowSlowDisk: e.AllowSlowDisk,
	}
	for _, m := range e.Members {
		s.Members = append(s.Members, Place(m))
	}
	if b := e.Bootstrap; b != nil {
		s.Token, s.Snapshot, s.Recover = b.Token.Reveal(), b.Snapshot, b.Recover
	}
	return s, nil
}

// Leaves are the member's certificates. Both are for client and server: the
// member also calls itself, and peers call each other.
func Leaves(cfg *machine.Config, id machine.Identity) []leaf.Leaf {
	ca := leaf.CA(cfg.Etcd.CA, cfg.Etcd.CAKey)
	request := pki.Request{
		CommonName: id.Hostname,
		DNSNames:   []string{id.Hostname, "localhost"},
		IPs:        leaf.IPs(id.Address, netip.MustParseAddr("127.0.0.1")),
		Client:     true,
		Server:     true,
	}
	return []leaf.Leaf{
		{Path: dir + "/server", CA: ca, Request: request},
		{Path: dir + "/peer", CA: ca, Request: request},
	}
}

func url(addr netip.Addr, port uint16) string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(addr, port))
}

// ClusterToken is a generation's initial-cluster-token: a member of another one does
// not take this for its own cluster.
func (s *Settings) ClusterToken() string { return s.Cluster + "-" + strconv.Itoa(s.Generation) }
