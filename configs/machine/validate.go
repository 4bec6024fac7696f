package machine

import (
	"fmt"
	"regexp"

	"slipway/configs/document"
	"slipway/configs/rule"
)

// bootstrapToken is the form Kubernetes gives to bootstrap tokens.
var bootstrapToken = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)

// CheckRole adds a problem unless role is one of the roles.
func CheckRole(ps *document.Problems, path string, role Role) {
	switch role {
	case ControlPlane, Worker:
	case "":
		ps.Add(path, "missing", "control-plane, worker")
	default:
		ps.Add(path, fmt.Sprintf("%q is not a role", role), "control-plane, worker")
	}
}

func (c *Config) problems() document.Problems {
	var ps document.Problems
	rule.Head(&ps, "apiVersion", c.APIVersion, APIVersion)
	rule.Head(&ps, "kind", c.Kind, Kind)
	rule.Name(&ps, "hostname", c.Hostname, 63)
	CheckRole(&ps, "role", c.Role)
	if c.Install.Disk != "none" {
		ps.Add("install.disk", fmt.Sprintf("%q is not known", c.Install.Disk), "none (run from RAM)")
	}
	rule.Labels(&ps, "kubelet.labels", c.Kubelet.Labels)
	rule.Taints(&ps, "kubelet.taints", c.Kubelet.Taints)
	c.Cluster.check(&ps)
	c.checkKeys(&ps)
	return ps
}

func (c *Cluster) check(ps *document.Problems) {
	rule.Name(ps, "cluster.name", c.Name, 63)
	rule.Endpoint(ps, "cluster.endpoint", c.Endpoint)
	rule.Subnets(ps, "cluster", c.PodSubnet, c.ServiceSubnet)
	rule.Domain(ps, "cluster.dnsDomain", c.DNSDomain)
	c.checkControlPlanes(ps)
	certificate(ps, "cluster.ca", c.CA)
	certificate(ps, "cluster.machineCA", c.MachineCA)
	if !bootstrapToken.MatchString(c.BootstrapToken.Reveal()) {
		ps.Add("cluster.bootstrapToken", "this is not a bootstrap token", "six and sixteen of a-z and 0-9, joined by a dot")
	}
}

func (c *Cluster) checkControlPlanes(ps *document.Problems) {
	if len(c.ControlPlanes) == 0 {
		ps.Add("cluster.controlPlanes", "there is none", "the address of at least one control-plane machine")
	}
	for i, addr := range c.ControlPlanes {
		at := document.Index("cluster.controlPlanes", i)
		if !addr.Is4() {
			ps.Add(at, fmt.Sprintf("%s is not IPv4", addr), "an IPv4 address")
		}
		for _, before := range c.ControlPlanes[:i] {
			if before == addr {
				ps.Add(at, fmt.Sprintf("%s is there already", addr), "each address once")
			}
		}
		rule.Outside(ps, at, addr, c.PodSubnet, c.ServiceSubnet)
	}
}

func (c *Config) checkKeys(ps *document.Problems) {
	keys := c.ControlPlaneKeys
	switch {
	case c.Role == ControlPlane && keys == nil:
		ps.Add("controlPlaneKeys", "missing, though the role is control-plane", "the cluster's signing keys")
	case c.Role == Worker && keys != nil:
		ps.Add("controlPlaneKeys", "a worker may not have them", "leave them out, or role: control-plane")
	case keys != nil:
		const at = "controlPlaneKeys."
		pair(ps, at+"caKey", c.Cluster.CA, keys.CAKey)
		certificate(ps, at+"etcdCA", keys.EtcdCA)
		pair(ps, at+"etcdCAKey", keys.EtcdCA, keys.EtcdCAKey)
		certificate(ps, at+"frontProxyCA", keys.FrontProxyCA)
		pair(ps, at+"frontProxyCAKey", keys.FrontProxyCA, keys.FrontProxyKey)
		privateKey(ps, at+"serviceAccountKey", keys.ServiceAccount)
		encryptionKey(ps, at+"encryptionKey", keys.EncryptionKey)
	}
}
