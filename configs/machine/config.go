// Package machine holds the MachineConfig: the one document that says what a
// machine is to be. The boot service renders it from a cluster document and
// delivers it; the node obeys it. The package is pure data: it reads no file
// and opens no connection.
package machine

import (
	"net/netip"

	"slipway/configs/secret"
)

// APIVersion and Kind head every machine config.
const (
	APIVersion = "slipway/v1"
	Kind       = "MachineConfig"
)

// Role says what a node is for.
type Role string

// The roles a machine can have.
const (
	ControlPlane Role = "control-plane" // etcd, the control plane, and workloads if schedulable
	Worker       Role = "worker"        // workloads only
)

// Config is a machine config. Parse returns one that is valid and complete.
type Config struct {
	APIVersion string `yaml:"apiVersion" jsonschema:"required,enum=slipway/v1"`
	Kind       string `yaml:"kind" jsonschema:"required,enum=MachineConfig"`

	// Hostname is the node's name: an RFC 1123 label, also the Kubernetes Node's name.
	Hostname string `yaml:"hostname" jsonschema:"required"`
	Role     Role   `yaml:"role" jsonschema:"required"`

	Install Install `yaml:"install,omitempty"`
	Kubelet Kubelet `yaml:"kubelet,omitempty"`
	Cluster Cluster `yaml:"cluster" jsonschema:"required"`

	// ControlPlaneKeys holds what only control-plane machines may know.
	// It is set exactly when Role is control-plane.
	ControlPlaneKeys *ControlPlaneKeys `yaml:"controlPlaneKeys,omitempty"`
}

// Install says where the operating system lives.
type Install struct {
	// Disk is "none": the machine runs from RAM, its state in tmpfs.
	Disk string `yaml:"disk,omitempty" jsonschema:"enum=none"`
}

// Kubelet is what a person may set on a node's kubelet.
type Kubelet struct {
	Labels map[string]string `yaml:"labels,omitempty"`
	// Taints the node registers with, as key=value:Effect.
	Taints []string `yaml:"taints,omitempty"`
}

// Cluster is what every node of a cluster knows.
type Cluster struct {
	Name string `yaml:"name" jsonschema:"required"`
	// Endpoint is the API server's address for people, https://host:port.
	Endpoint string `yaml:"endpoint" jsonschema:"required"`
	// ControlPlanes are the addresses of the control-plane machines.
	ControlPlanes []netip.Addr `yaml:"controlPlanes" jsonschema:"required"`
	PodSubnet     netip.Prefix `yaml:"podSubnet" jsonschema:"required"`
	ServiceSubnet netip.Prefix `yaml:"serviceSubnet" jsonschema:"required"`
	DNSDomain     string       `yaml:"dnsDomain" jsonschema:"required"`
	// CA is the Kubernetes CA certificate, PEM.
	CA string `yaml:"ca" jsonschema:"required"`
	// MachineCA is the boot service's CA certificate, PEM. It signed the
	// machine's own certificate, which the kubelet serves with.
	MachineCA string `yaml:"machineCA" jsonschema:"required"`
	// BootstrapToken lets a kubelet ask for its first client certificate
	// (bootstrap token, id.secret; kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens).
	BootstrapToken secret.String `yaml:"bootstrapToken" jsonschema:"required"`
}

// ControlPlaneKeys are the cluster's signing keys. All PEM except EncryptionKey.
type ControlPlaneKeys struct {
	CAKey          secret.String `yaml:"caKey" jsonschema:"required"`
	EtcdCA         string        `yaml:"etcdCA" jsonschema:"required"`
	EtcdCAKey      secret.String `yaml:"etcdCAKey" jsonschema:"required"`
	FrontProxyCA   string        `yaml:"frontProxyCA" jsonschema:"required"`
	FrontProxyKey  secret.String `yaml:"frontProxyCAKey" jsonschema:"required"`
	ServiceAccount secret.String `yaml:"serviceAccountKey" jsonschema:"required"`
	// EncryptionKey encrypts Secrets in etcd: 32 bytes, base64 (secretbox).
	EncryptionKey secret.String `yaml:"encryptionKey" jsonschema:"required"`
	// Bootstrap is true for the one machine that starts a new etcd cluster.
	Bootstrap bool `yaml:"bootstrap,omitempty"`
}

// Identity is what a node knows of itself once its network is up.
type Identity struct {
	Hostname string
	Address  netip.Addr // the node's address, IPv4
	Link     string     // the network interface that holds Address
	// Nameservers are those the network offers; there may be none.
	Nameservers []netip.Addr
}
