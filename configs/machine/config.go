// Package machine holds the MachineConfig: the one document that says what a
// machine is to be. The boot service renders it from a cluster document and
// delivers it; the node obeys it. The package is pure data: it reads no file
// and opens no connection.
package machine

import (
	"net/netip"
	"slices"
	"time"

	"slipway/configs/secret"
)

// APIVersion and Kind head every machine config.
const (
	APIVersion = "slipway/v1"
	Kind       = "MachineConfig"
)

// DefaultCertificateLifetime is how long components' certificates last when
// nothing else is said.
const DefaultCertificateLifetime = 365 * 24 * time.Hour

// Role says what a node is for.
type Role string

// The roles a machine can have.
const (
	ControlPlane Role = "control-plane" // etcd, the control plane, and workloads if schedulable
	Worker       Role = "worker"        // workloads only
	EtcdOnly     Role = "etcd"          // a member of etcd, and nothing of Kubernetes
)

// Config is a machine config. Parse returns one that is valid and complete.
type Config struct {
	APIVersion string `yaml:"apiVersion" jsonschema:"required,enum=slipway/v1"`
	Kind       string `yaml:"kind" jsonschema:"required,enum=MachineConfig"`

	// Hostname is the node's name: an RFC 1123 label, also the Kubernetes Node's name.
	Hostname string `yaml:"hostname" jsonschema:"required"`
	Role     Role   `yaml:"role" jsonschema:"required"`

	Install Install `yaml:"install"`
	Kubelet Kubelet `yaml:"kubelet,omitempty"`
	Cluster Cluster `yaml:"cluster" jsonschema:"required"`

	// Etcd is set exactly when Role is control-plane or etcd.
	Etcd *Etcd `yaml:"etcd,omitempty"`

	// ControlPlaneKeys holds what only control-plane machines may know.
	// It is set exactly when Role is control-plane.
	ControlPlaneKeys *ControlPlaneKeys `yaml:"controlPlaneKeys,omitempty"`
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
	// VirtualIP is an address that one healthy control plane holds; none: zero.
	VirtualIP netip.Addr `yaml:"virtualIP"` // none is written as "": the encoder takes every Addr for zero
	// CertificateLifetime is how long the certificates last that machines make
	// for their components. They are renewed before only a third of it is left.
	CertificateLifetime time.Duration `yaml:"certificateLifetime,omitempty"`
	// ControlPlanes are the addresses of the control-plane machines.
	ControlPlanes []netip.Addr `yaml:"controlPlanes" jsonschema:"required"`
	PodSubnet     netip.Prefix `yaml:"podSubnet" jsonschema:"required"`
	ServiceSubnet netip.Prefix `yaml:"serviceSubnet" jsonschema:"required"`
	DNSDomain     string       `yaml:"dnsDomain" jsonschema:"required"`
	// CA is the Kubernetes CA certificate, PEM. During a rotation there are
	// two, and both are trusted: the one that signs stands first, for a worker
	// has no key to tell by. That is so for every CA here.
	CA string `yaml:"ca" jsonschema:"required"`
	// MachineCA is the boot service's CA certificate, PEM. It signed the
	// machine's own certificate, which the kubelet serves with.
	MachineCA string `yaml:"machineCA" jsonschema:"required"`
	// BootstrapToken lets a worker ask for its kubelet's client certificate
	// (bootstrap token, id.secret; kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens).
	BootstrapToken secret.String `yaml:"bootstrapToken" jsonschema:"required"`
}

// ControlPlaneKeys are the cluster's signing keys, PEM. Each is the key of the
// certificate beside it: of the first, which signs, if there are two.
type ControlPlaneKeys struct {
	CAKey          secret.String `yaml:"caKey" jsonschema:"required"`
	FrontProxyCA   string        `yaml:"frontProxyCA" jsonschema:"required"`
	FrontProxyKey  secret.String `yaml:"frontProxyCAKey" jsonschema:"required"`
	ServiceAccount secret.String `yaml:"serviceAccountKey" jsonschema:"required"`
	// OtherAccounts is the public key, PEM, of another service-account key whose
	// tokens are accepted too: of the next one or the one before, in a rotation.
	OtherAccounts string `yaml:"otherServiceAccountKey,omitempty"`
	// EncryptionKeys encrypt Secrets in etcd. The first writes, all read.
	EncryptionKeys []EncryptionKey `yaml:"encryptionKeys" jsonschema:"required"`
	// RewriteSecrets has all Secrets written anew, with the first key.
	RewriteSecrets bool `yaml:"rewriteSecrets,omitempty"`
}

// EncryptionKey is a key for Secrets at rest (secretbox).
type EncryptionKey struct {
	Name   string        `yaml:"name" jsonschema:"required"`   // an RFC 1123 label; etcd's values name it
	Secret secret.String `yaml:"secret" jsonschema:"required"` // 32 bytes, base64
}

// Etcd says where the cluster's state is kept, and this machine's part in that.
type Etcd struct {
	// CA is what members and clients of etcd are checked against, PEM.
	CA string `yaml:"ca" jsonschema:"required"`
	// CAKey signs this machine's certificates. Empty if the etcd is external.
	CAKey secret.String `yaml:"caKey,omitempty"`
	// Generation counts the times that etcd was started anew: at first, and at
	// every restore and recovery. Data of an earlier one is not used. From 1.
	Generation int `yaml:"generation,omitempty"`
	// Members are the machines that are to run a member; none if it is external.
	Members []EtcdMember `yaml:"members,omitempty"`
	// Bootstrap is set for the one machine that starts this generation.
	Bootstrap *EtcdBootstrap `yaml:"bootstrap,omitempty"`
	External  *EtcdExternal  `yaml:"external,omitempty"`
	// AllowSlowDisk lets a machine be a member whose disk is too slow for it.
	AllowSlowDisk bool `yaml:"allowSlowDisk,omitempty"`
}

// EtcdMember is a machine that runs a member of etcd, called by its hostname.
type EtcdMember struct {
	Name    string     `yaml:"name" jsonschema:"required"`
	Address netip.Addr `yaml:"address" jsonschema:"required"`
}

// EtcdBootstrap is the leave to start etcd anew, once.
type EtcdBootstrap struct {
	// Token is redeemed with the boot service, which takes it once.
	Token secret.String `yaml:"token" jsonschema:"required"`
	// Snapshot is the SHA-256, hex, of the snapshot to start from: a restore.
	Snapshot string `yaml:"snapshot,omitempty"`
	// Recover has the machine go on with the data it has, as the only member.
	Recover bool `yaml:"recover,omitempty"`
}

// EtcdExternal is an etcd that someone else runs.
type EtcdExternal struct {
	Endpoints []string      `yaml:"endpoints" jsonschema:"required"` // https://host:port
	Cert      string        `yaml:"cert" jsonschema:"required"`      // the API servers' client certificate, PEM
	Key       secret.String `yaml:"key" jsonschema:"required"`       // PEM
}

// IsMember says whether the machine runs a member of etcd.
func (c *Config) IsMember() bool {
	return c.Etcd != nil && slices.ContainsFunc(c.Etcd.Members, func(m EtcdMember) bool { return m.Name == c.Hostname })
}

// ReplacesEncryptionKey says whether the machine has more to do with its
// encryption keys than to use one.
func (c *Config) ReplacesEncryptionKey() bool {
	keys := c.ControlPlaneKeys
	return keys != nil && (len(keys.EncryptionKeys) > 1 || keys.RewriteSecrets)
}

// Identity is what a node knows of itself once its network is up.
type Identity struct {
	Hostname string
	Address  netip.Addr // the node's address, IPv4
	Link     string     // the network interface that holds Address
	Emulated bool       // the processor is QEMU's software: all takes many times as long
	// Nameservers are those the network offers; there may be none.
	Nameservers []netip.Addr
}
