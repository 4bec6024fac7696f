// Package cluster holds the Cluster document: the one file that a person
// writes. It names the machines and says what they are to be together. The
// package is pure data: it reads no file and opens no connection.
package cluster

import (
	"net/netip"

	"slipway/configs/machine"
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
	Endpoint string  `yaml:"endpoint,omitempty"`
	Network  Network `yaml:"network"`
	// ScheduleOnControlPlanes lets workloads run on control-plane machines.
	// Left out, it is true exactly when there is no worker.
	ScheduleOnControlPlanes *bool     `yaml:"scheduleOnControlPlanes,omitempty"`
	Machines                []Machine `yaml:"machines" jsonschema:"required"`
}

// Network is the cluster's address plan. The subnets are IPv4 and disjoint.
type Network struct {
	PodSubnet     netip.Prefix `yaml:"podSubnet"`
	ServiceSubnet netip.Prefix `yaml:"serviceSubnet"`
	DNSDomain     string       `yaml:"dnsDomain,omitempty"`
}

// Machine gives one machine its place in the cluster.
type Machine struct {
	// ID is the machine's name in the inventory: the MAC address it boots
	// from, 52-54-00-12-34-56 (colons are taken too).
	ID string `yaml:"id" jsonschema:"required"`
	// Role, left out, is control-plane for the first machine and worker for the others.
	Role machine.Role `yaml:"role,omitempty"`
	// Hostname, left out, is <cluster>-cp-<n> or <cluster>-worker-<n>.
	Hostname string            `yaml:"hostname,omitempty"`
	Labels   map[string]string `yaml:"labels,omitempty"`
	Taints   []string          `yaml:"taints,omitempty"`
}
