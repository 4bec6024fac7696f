package machine

import (
	"fmt"
	"regexp"
	"slices"

	"slipway/configs/document"
	"slipway/configs/rule"
)

// bootstrapToken is the form Kubernetes gives to bootstrap tokens.
var bootstrapToken = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)

// CheckRole adds a problem unless role is one of the roles.
func CheckRole(ps *document.Problems, path string, role Role) {
	switch role {
	case ControlPlane, Worker, EtcdOnly:
	case "":
		ps.Add(path, "missing", "control-plane, worker, etcd")
	default:
		ps.Add(path, fmt.Sprintf("%q is not a role", role), "control-plane, worker, etcd")
	}
}

func (c *Config) problems() document.Problems {
	var ps document.Problems
	rule.Head(&ps, "apiVersion", c.APIVersion, APIVersion)
	rule.Head(&ps, "kind", c.Kind, Kind)
	rule.Name(&ps, "hostname", c.Hostname, 63)
	CheckRole(&ps, "role", c.Role)
	c.Install.check(&ps, "install")
	rule.Labels(&ps, "kubelet.labels", c.Kubelet.Labels)
	rule.Taints(&ps, "kubelet.taints", c.Kubelet.Taints)
	c.Cluster.check(&ps)
	c.checkKeys(&ps)
	c.checkEtcd(&ps)
	return ps
}

func (c *Cluster) check(ps *document.Problems) {
	rule.Name(ps, "cluster.name", c.Name, 63)
	rule.Endpoint(ps, "cluster.endpoint", c.Endpoint)
	rule.Subnets(ps, "cluster", c.PodSubnet, c.ServiceSubnet)
	rule.Domain(ps, "cluster.dnsDomain", c.DNSDomain)
	c.checkControlPlanes(ps)
	authorities(ps, "cluster.ca", c.CA)
	authorities(ps, "cluster.machineCA", c.MachineCA)
	c.checkVirtualIP(ps)
	rule.CertificateLifetime(ps, "cluster.certificateLifetime", c.CertificateLifetime)
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

func (c *Cluster) checkVirtualIP(ps *document.Problems) {
	switch {
	case !c.VirtualIP.IsValid():
	case !c.VirtualIP.Is4():
		ps.Add("cluster.virtualIP", fmt.Sprintf("%s is not IPv4", c.VirtualIP), "an IPv4 address")
	case slices.Contains(c.ControlPlanes, c.VirtualIP):
		ps.Add("cluster.virtualIP", fmt.Sprintf("%s is a control plane's own address", c.VirtualIP), "an address that no machine has")
	default:
		rule.Outside(ps, "cluster.virtualIP", c.VirtualIP, c.PodSubnet, c.ServiceSubnet)
	}
}

func (c *Config) checkKeys(ps *document.Problems) {
	keys := c.ControlPlaneKeys
	switch {
	case c.Role == ControlPlane && keys == nil:
		ps.Add("controlPlaneKeys", "missing, though the role is control-plane", "the cluster's signing keys")
	case c.Role != ControlPlane && keys != nil:
		ps.Add("controlPlaneKeys", "only a control plane may have them", "leave them out, or role: control-plane")
	case keys != nil:
		const at = "controlPlaneKeys."
		pair(ps, at+"caKey", c.Cluster.CA, keys.CAKey)
		authorities(ps, at+"frontProxyCA", keys.FrontProxyCA)
		pair(ps, at+"frontProxyCAKey", keys.FrontProxyCA, keys.FrontProxyKey)
		privateKey(ps, at+"serviceAccountKey", keys.ServiceAccount)
		publicKey(ps, at+"otherServiceAccountKey", keys.OtherAccounts)
		keys.checkEncryption(ps, at+"encryptionKeys")
	}
}

func (k *ControlPlaneKeys) checkEncryption(ps *document.Problems, path string) {
	if len(k.EncryptionKeys) == 0 {
		ps.Add(path, "there is none", "at least one: - {name: key-1, secret: 32 bytes in base64}")
	}
	seen := map[string]bool{}
	for i, key := range k.EncryptionKeys {
		at := document.Index(path, i)
		rule.Name(ps, at+".name", key.Name, 63)
		encryptionKey(ps, at+".secret", key.Secret)
		if seen[key.Name] {
			ps.Add(at+".name", fmt.Sprintf("%q is there already", key.Name), "each name once")
		}
		seen[key.Name] = true
	}
}
