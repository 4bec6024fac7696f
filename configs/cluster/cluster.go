// Package cluster holds the Cluster document: the one file that a person
// writes. It names the machines and says what they are to be together. The
// package is pure data: it reads no file and opens no connection.
package cluster

import (
	"net/netip"
	"time"

	"slipway/configs/machine"
	"slipway/configs/secret"
)

// Kind heads every cluster document, beside machine.APIVersion.
const Kind = "Cluster"

// Defaults of the fields a person may leave out.
var (
	DefaultPodSubnet     = netip.MustParsePrefix("10.244.0.0/16")
	DefaultServiceSubnet = netip.MustParsePrefix("10.96.0.0/16")
)

// DefaultDNSDomain is the cluster's DNS domain when none is given.
const DefaultDNSDomain = "cluster.local"

// Cluster is a cluster document. The shortest is a name and one machine.
// Parse returns one that is valid and complete.
type Cluster struct {
	APIVersion string `yaml:"apiVersion,omitempty" jsonschema:"enum=slipway/v1"`
	Kind       string `yaml:"kind,omitempty" jsonschema:"enum=Cluster"`
	// Name is an RFC 1123 label.
	Name string `yaml:"name" jsonschema:"required"`
	// Endpoint is the API's address for people, https://host:port. Left
	// out, it is the first control-plane machine's address, port 6443.
	Endpoint string `yaml:"endpoint,omitempty"`
	// VirtualIP is an unused address of the control planes' network. One
	// healthy control plane holds it, and Endpoint, left out, is there.
	VirtualIP netip.Addr `yaml:"virtualIP"` // none is written as "": the encoder takes every Addr for zero
	Network   Network    `yaml:"network"`
	Etcd      Etcd       `yaml:"etcd,omitempty"`
	// CertificateLifetime, left out, is a year. At least ten minutes.
	CertificateLifetime time.Duration `yaml:"certificateLifetime,omitempty"`
	// ScheduleOnControlPlanes lets workloads run on control-plane machines.
	// Left out, it is true exactly when there is no worker.
	ScheduleOnControlPlanes *bool `yaml:"scheduleOnControlPlanes,omitempty"`
	// Install is where the machines keep their operating system: by default in RAM.
	Install  Install   `yaml:"install"`
	Machines []Machine `yaml:"machines" jsonschema:"required"`
}

// Install says where a machine's operating system lives.
type Install struct {
	// Disk is "none": in RAM; "any": on the smallest suitable disk; or a rule.
	Disk machine.Disk `yaml:"disk"`
	// DataSize is how much of the disk is /var; left out, all that is left.
	DataSize machine.Size `yaml:"dataSize,omitempty"`
}

// Network is the cluster's address plan. The subnets are IPv4 and disjoint.
type Network struct {
	PodSubnet     netip.Prefix `yaml:"podSubnet"`
	ServiceSubnet netip.Prefix `yaml:"serviceSubnet"`
	DNSDomain     string       `yaml:"dnsDomain,omitempty"`
}

// Etcd says where the cluster keeps its state: on the control planes; or, if
// machines have the role etcd, on those; or in an etcd that someone else runs.
type Etcd struct {
	External  *External `yaml:"external,omitempty"`
	Snapshots Snapshots `yaml:"snapshots,omitempty"`
	// AllowSlowDisk lets machines be members whose disks are too slow for it.
	AllowSlowDisk bool `yaml:"allowSlowDisk,omitempty"`
}

// External is an etcd that someone else runs.
type External struct {
	Endpoints []string      `yaml:"endpoints" jsonschema:"required"` // https://host:port
	CA        string        `yaml:"ca" jsonschema:"required"`        // of its servers, PEM
	Cert      string        `yaml:"cert" jsonschema:"required"`      // the API servers' client certificate, PEM
	Key       secret.String `yaml:"key" jsonschema:"required"`       // PEM
}

// Snapshots says when the boot service takes snapshots of etcd by itself.
type Snapshots struct {
	// Every, left out, is six hours; negative: never. At least a minute.
	Every time.Duration `yaml:"every,omitempty"`
	// Keep is how many of them are kept; left out, 28.
	Keep int `yaml:"keep,omitempty"`
}

// Machine gives one machine its place in the cluster.
type Machine struct {
	// ID is the machine's name in the inventory: the MAC address it boots
	// from, 52-54-00-12-34-56 (colons are taken too).
	ID string `yaml:"id" jsonschema:"required"`
	// Role, left out, is control-plane for the first machine and worker for the others.
	// The third is etcd.
	Role machine.Role `yaml:"role,omitempty"`
	// Hostname, left out, is <cluster>-cp-<n> or <cluster>-worker-<n>.
	Hostname string            `yaml:"hostname,omitempty"`
	Labels   map[string]string `yaml:"labels,omitempty"`
	Taints   []string          `yaml:"taints,omitempty"`
	// Install, left out, is the cluster's, and so is each of its fields.
	Install *Install `yaml:"install,omitempty"`
}

// InstallOf is what is said of a machine's disk, the cluster's word included.
func (c *Cluster) InstallOf(m Machine) Install {
	if m.Install != nil {
		return *m.Install
	}
	return c.Install
}

// Masked says that the document is one that was shown to a person: the key of
// the external etcd is not in it.
func (c *Cluster) Masked() bool { return c.Etcd.External != nil && c.Etcd.External.Key.Masked() }

// Mask is the document as it may be shown to anybody: the key of the external
// etcd is masked.
func (c *Cluster) Mask() *Cluster {
	shown := *c
	if c.Etcd.External != nil {
		external := *c.Etcd.External
		external.Key = external.Key.Mask()
		shown.Etcd.External = &external
	}
	return &shown
}

// Unmask gives a masked document the key that another one of the cluster has.
func (c *Cluster) Unmask(with *Cluster) {
	if c.Masked() && with.Etcd.External != nil {
		c.Etcd.External.Key = with.Etcd.External.Key
	}
}
