package cluster

import (
	"fmt"
	"net/netip"
	"time"

	"slipway/configs/document"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/configs/rule"
)

// maxName leaves room for "-worker-" and a number in a host name's 63 characters.
const maxName = 48

func (c *Cluster) problems() document.Problems {
	var ps document.Problems
	rule.Head(&ps, "apiVersion", c.APIVersion, machine.APIVersion)
	rule.Head(&ps, "kind", c.Kind, Kind)
	rule.Name(&ps, "name", c.Name, maxName)
	rule.Subnets(&ps, "network", c.Network.PodSubnet, c.Network.ServiceSubnet)
	rule.Domain(&ps, "network.dnsDomain", c.Network.DNSDomain)
	c.checkEndpoint(&ps)
	c.checkQuorum(&ps)
	c.checkEtcd(&ps)
	rule.CertificateLifetime(&ps, "certificateLifetime", c.CertificateLifetime)
	c.checkRoom(&ps)
	machine.CheckDisk(&ps, "install", c.Install.Disk, c.Install.DataSize)
	checkMachines(&ps, c.Machines)
	return ps
}

func (c *Cluster) checkEndpoint(ps *document.Problems) {
	if c.VirtualIP.IsValid() {
		rule.Outside(ps, "virtualIP", c.VirtualIP, c.Network.PodSubnet, c.Network.ServiceSubnet)
		if !c.VirtualIP.Is4() {
			ps.Add("virtualIP", fmt.Sprintf("%s is not IPv4", c.VirtualIP), "an IPv4 address")
		}
	}
	if c.Endpoint == "" {
		return
	}
	host := rule.Endpoint(ps, "endpoint", c.Endpoint)
	if addr, err := netip.ParseAddr(host); err == nil {
		rule.Outside(ps, "endpoint", addr, c.Network.PodSubnet, c.Network.ServiceSubnet)
	}
}

// checkQuorum wants a number of members that etcd can work with: it agrees by
// majority, and beyond seven every write waits for too many (etcd.io/docs, FAQ).
// An even number is allowed, on the way from one odd number to the next.
func (c *Cluster) checkQuorum(ps *document.Problems) {
	planes, dedicated := c.count(machine.ControlPlane), c.count(machine.EtcdOnly)
	switch {
	case len(c.Machines) == 0:
		ps.Add("machines", "there is none", "a list with at least one machine: - id: 52-54-00-12-34-56")
	case planes == 0:
		ps.Add("machines", "no machine is a control plane", "1, 3, 5 or 7 machines with role control-plane")
	case max(planes, dedicated) > 7:
		n := max(planes, dedicated)
		ps.Add("machines", fmt.Sprintf("%d members: etcd's writes would wait for %d of them", n, n/2+1), "1, 3, 5 or 7 machines with one role")
	}
}

// Even says how many members of etcd there are, and whether one fewer would
// survive as many failures.
func (c *Cluster) Even() (members int, even bool) {
	members = len(c.EtcdMachines())
	return members, members > 0 && members%2 == 0
}

// EtcdMachines are the machines that run a member of etcd; none if it is external.
func (c *Cluster) EtcdMachines() (members []Machine) {
	role := machine.ControlPlane
	if c.count(machine.EtcdOnly) > 0 {
		role = machine.EtcdOnly
	}
	for _, m := range c.Machines {
		if m.Role == role && c.Etcd.External == nil {
			members = append(members, m)
		}
	}
	return members
}

func (c *Cluster) checkEtcd(ps *document.Problems) {
	if s := c.Etcd.Snapshots; s.Every > 0 && s.Every < time.Minute {
		ps.Add("etcd.snapshots.every", fmt.Sprintf("%s is too often", s.Every), "1m or more; negative for never")
	}
	if c.Etcd.Snapshots.Keep < 1 {
		ps.Add("etcd.snapshots.keep", fmt.Sprintf("%d would keep none", c.Etcd.Snapshots.Keep), "1 or more")
	}
	e := c.Etcd.External
	if e == nil {
		return
	}
	if c.count(machine.EtcdOnly) > 0 {
		ps.Add("etcd.external", "machines have the role etcd too", "either external or machines with role etcd")
	}
	machine.CheckAuthorities(ps, "etcd.external.ca", e.CA)
	machine.CheckExternal(ps, "etcd.external", machine.EtcdExternal{Endpoints: e.Endpoints, Cert: e.Cert, Key: e.Key})
}

// checkRoom wants a /24 of the pod subnet for each machine.
func (c *Cluster) checkRoom(ps *document.Problems) {
	bits := c.Network.PodSubnet.Bits()
	if bits < 8 || bits > 24 {
		return // said already
	}
	if room := 1 << (24 - bits); len(c.Machines) > room {
		ps.Add("network.podSubnet", fmt.Sprintf("%s has room for %d machines, a /24 each; there are %d", c.Network.PodSubnet, room, len(c.Machines)), "a larger subnet")
	}
}

func checkMachines(ps *document.Problems, machines []Machine) {
	ids, hostnames := map[string]int{}, map[string]int{}
	for i, m := range machines {
		at := document.Index("machines", i)
		checkID(ps, at+".id", m.ID)
		machine.CheckRole(ps, at+".role", m.Role)
		rule.Name(ps, at+".hostname", m.Hostname, 63)
		rule.Labels(ps, at+".labels", m.Labels)
		rule.Taints(ps, at+".taints", m.Taints)
		if m.Install != nil {
			machine.CheckDisk(ps, at+".install", m.Install.Disk, m.Install.DataSize)
		}
		once(ps, ids, i, at+".id", m.ID)
		once(ps, hostnames, i, at+".hostname", m.Hostname)
	}
}

func checkID(ps *document.Problems, path, id string) {
	if id == "" {
		ps.Add(path, "missing", "the MAC address the machine boots from, such as 52-54-00-12-34-56")
		return
	}
	if _, err := enroll.ParseMachineID(id); err != nil {
		ps.Add(path, fmt.Sprintf("%q is not a machine ID", id), "the MAC address the machine boots from, such as 52-54-00-12-34-56")
	}
}

// once records where a value was seen and reports its second appearance.
func once(ps *document.Problems, seen map[string]int, i int, path, value string) {
	if value == "" {
		return
	}
	if first, twice := seen[value]; twice {
		ps.Add(path, fmt.Sprintf("%q is machines[%d]'s already", value, first), "each machine once")
		return
	}
	seen[value] = i
}
