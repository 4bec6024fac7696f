package etcd

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

const (
	// Quota is what the database may grow to, in bytes, before etcd refuses
	// writes. A machine that runs from RAM keeps it in memory.
	Quota = 1 << 30

	// snapshotCount is after how many entries the log is cut, and keptEntries
	// how many stay for members that are behind. Both are in memory, and an
	// object of Kubernetes may be a megabyte.
	snapshotCount, keptEntries = 5000, 2500
)

// Program is how the upstream program is to run.
type Program struct {
	Paths    Paths
	Settings *Settings
	Measured Measured
	New      bool     // the member makes a new cluster of one
	Force    bool     // it takes over the data of an earlier generation, as the only member
	Members  []Member // Join: all members
	Quota    int64    // bytes; 0: the constant of that name
}

// Dir is the data directory.
func (p Program) Dir() string {
	return filepath.Join(p.Paths.Data, strconv.Itoa(p.Settings.Generation))
}

// file is etcd's configuration file (etcd.io/docs: configuration options), in
// its own words.
type file struct {
	Name      string `yaml:"name"`
	DataDir   string `yaml:"data-dir"`
	Client    string `yaml:"listen-client-urls"`
	Advertise string `yaml:"advertise-client-urls"`
	Peer      string `yaml:"listen-peer-urls"`
	PeerSelf  string `yaml:"initial-advertise-peer-urls"`
	Initial   string `yaml:"initial-cluster"`
	Token     string `yaml:"initial-cluster-token"`
	State     string `yaml:"initial-cluster-state"`
	Force     bool   `yaml:"force-new-cluster,omitempty"`

	TLSMin     string   `yaml:"tls-min-version"`
	ClientTLS  security `yaml:"client-transport-security"`
	PeerTLS    security `yaml:"peer-transport-security"`
	Heartbeat  int64    `yaml:"heartbeat-interval"` // ms
	Election   int64    `yaml:"election-timeout"`   // ms
	PreVote    bool     `yaml:"pre-vote"`
	Strict     bool     `yaml:"strict-reconfig-check"`
	Quota      int64    `yaml:"quota-backend-bytes"`
	Compaction string   `yaml:"auto-compaction-mode"`
	Retention  string   `yaml:"auto-compaction-retention"`
	Snapshots  int      `yaml:"snapshot-count"`
	Kept       int      `yaml:"snapshot-catchup-entries"`

	// Members compare their data when they start, and after each compaction;
	// and they call each other from the address that their certificates name,
	// though a machine may hold the cluster's virtual one too.
	Features string `yaml:"feature-gates"`
}

type security struct {
	Cert     string `yaml:"cert-file"`
	Key      string `yaml:"key-file"`
	CertAuth bool   `yaml:"client-cert-auth"`
	CA       string `yaml:"trusted-ca-file"`
}

// ConfigFile is the text of etcd's configuration file. What clients and peers
// reach over the network, metrics and health among it, they reach with a
// certificate only; what root on this machine reaches by the socket, without.
func (p Program) ConfigFile() ([]byte, error) {
	s, self := p.Settings, p.Settings.Self()
	heartbeat, election := p.Measured.Timing(len(s.Members))
	listen := "unix://" + p.Paths.Clients + ",https://" + p.Paths.Local
	if listen != self.ClientURL() {
		listen += "," + self.ClientURL()
	}
	text, err := yaml.Marshal(file{
		Name: s.Name, DataDir: p.Dir(), Client: listen, Advertise: self.ClientURL(),
		Peer: self.PeerURL(), PeerSelf: self.PeerURL(), Initial: p.initial(), Token: s.ClusterToken(), State: p.state(), Force: p.Force,
		TLSMin: "TLS1.3", ClientTLS: p.security("server"), PeerTLS: p.security("peer"),
		Heartbeat: heartbeat.Milliseconds(), Election: election.Milliseconds(), PreVote: true, Strict: true,
		Quota: cmp.Or(p.Quota, Quota), Compaction: "periodic", Retention: "1h", Snapshots: snapshotCount, Kept: keptEntries,
		Features: "InitialCorruptCheck=true,CompactHashCheck=true,SetMemberLocalAddr=true",
	})
	if err != nil {
		return nil, fmt.Errorf("write etcd's configuration: %w", err)
	}
	return text, nil
}

func (p Program) state() string {
	if p.New {
		return "new"
	}
	return "existing"
}

// initial is all members, this one by the name it does not have yet.
func (p Program) initial() string {
	self := p.Settings.Self()
	list := []string{self.Name + "=" + self.PeerURL()}
	for _, m := range p.Members {
		if m.PeerURL != self.PeerURL() {
			list = append(list, m.Name+"="+m.PeerURL)
		}
	}
	return strings.Join(list, ",")
}

func (p Program) security(name string) security {
	path := filepath.Join(p.Paths.PKI, name)
	return security{Cert: path + ".crt", Key: path + ".key", CertAuth: true, CA: filepath.Join(p.Paths.PKI, "ca.crt")}
}

// TimingIn is the timing that a configuration file holds; zero if it cannot be
// read.
func TimingIn(path string) (heartbeat, election time.Duration) {
	var f file
	text, err := os.ReadFile(path)
	if err != nil || yaml.Unmarshal(text, &f) != nil {
		return 0, 0
	}
	return time.Duration(f.Heartbeat) * time.Millisecond, time.Duration(f.Election) * time.Millisecond
}
