// Package etcd says how a control-plane machine runs its etcd member: which
// flags, which certificates. The member is the upstream program, supervised.
// Package controlplane calls it.
//
// It knows one member only, the first; joining others is not built yet.
package etcd

import (
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
	// Name is the unit's.
	Name = "etcd"
	// Endpoint is where this machine's own clients reach the member.
	Endpoint = "https://127.0.0.1:2379"
	// CAFile holds the CA of everything that speaks to etcd.
	CAFile = dir + "/ca.crt"

	dir = "/etc/kubernetes/pki/etcd"

	// metrics answers plain HTTP, on loopback only: health and figures, no data.
	metrics = "http://127.0.0.1:2381"

	// quota is what the database may grow to, in bytes, before etcd refuses
	// writes. A machine that runs from RAM keeps it in memory.
	quota = 1 << 30
)

// Units returns the member's unit.
func Units(cfg *machine.Config, id machine.Identity) []supervise.Unit {
	return []supervise.Unit{{Name: Name, After: []string{renew.Name}, Service: &proc.Process{
		Name:        Name,
		Path:        "/usr/bin/etcd",
		Args:        args(cfg, id),
		Reads:       []string{CAFile},
		Ready:       proc.HTTPProbe{URL: metrics + "/readyz"},
		OOMScoreAdj: -999,
	}}}
}

func args(cfg *machine.Config, id machine.Identity) []string {
	client, peer := url(id.Address, 2379), url(id.Address, 2380)
	heartbeat, election := timing(len(cfg.Cluster.ControlPlanes))
	return []string{
		"--name=" + id.Hostname,
		"--data-dir=/var/lib/etcd",
		"--listen-client-urls=" + Endpoint + "," + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + id.Hostname + "=" + peer,
		"--initial-cluster-token=" + cfg.Cluster.Name,
		"--initial-cluster-state=" + state(cfg),
		"--client-cert-auth",
		"--trusted-ca-file=" + CAFile,
		"--cert-file=" + dir + "/server.crt",
		"--key-file=" + dir + "/server.key",
		"--peer-client-cert-auth",
		"--peer-trusted-ca-file=" + CAFile,
		"--peer-cert-file=" + dir + "/peer.crt",
		"--peer-key-file=" + dir + "/peer.key",
		"--tls-min-version=TLS1.3",
		"--listen-metrics-urls=" + metrics,
		"--heartbeat-interval=" + milliseconds(heartbeat),
		"--election-timeout=" + milliseconds(election),
		"--quota-backend-bytes=" + strconv.Itoa(quota),
		"--auto-compaction-mode=periodic",
		"--auto-compaction-retention=1h",
	}
}

// state says whether the member makes a new cluster. Only the machine that is
// told to may: another, with an empty disk, would make a second one.
func state(cfg *machine.Config) string {
	if cfg.Etcd.Bootstrap != nil {
		return "new"
	}
	return "existing"
}

// timing returns the heartbeat and the election timeout. A lone member has
// nobody to lose, and waits up to one election timeout at each start: short
// is better. Members under software emulation need long ones: with these,
// three on two cores kept their leader.
func timing(members int) (heartbeat, election time.Duration) {
	if members == 1 {
		return 50 * time.Millisecond, 500 * time.Millisecond
	}
	return 500 * time.Millisecond, 5 * time.Second
}

// Files returns what the member's and its clients' certificates are checked
// against: the CA, or both while it is being replaced.
func Files(cfg *machine.Config) []proc.File {
	return []proc.File{{Path: CAFile, Mode: 0o644, Data: []byte(cfg.Etcd.CA)}}
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

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
