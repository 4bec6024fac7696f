package cluster

import (
	"fmt"
	"net/netip"

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
	c.checkRoom(&ps)
	checkMachines(&ps, c.Machines)
	return ps
}

func (c *Cluster) checkEndpoint(ps *document.Problems) {
	if c.Endpoint == "" {
		return
	}
	host := rule.Endpoint(ps, "endpoint", c.Endpoint)
	if addr, err := netip.ParseAddr(host); err == nil {
		rule.Outside(ps, "endpoint", addr, c.Network.PodSubnet, c.Network.ServiceSubnet)
	}
}

// checkQuorum wants an odd number of control planes: etcd agrees by majority,
// so an even member adds a way to fail and tolerates nothing more; beyond
// seven every write waits for too many (etcd.io/docs, FAQ).
func (c *Cluster) checkQuorum(ps *document.Problems) {
	if len(c.Machines) == 0 {
		ps.Add("machines", "there is none", "a list with at least one machine: - id: 52-54-00-12-34-56")
		return
	}
	const valid = "1, 3, 5 or 7 machines with role control-plane"
	switch n := c.count(machine.ControlPlane); {
	case n == 0:
		ps.Add("machines", "no machine is a control plane", valid)
	case n > 7:
		ps.Add("machines", fmt.Sprintf("%d control planes: etcd's writes would wait for %d of them", n, n/2+1), valid)
	case n%2 == 0:
		ps.Add("machines", fmt.Sprintf("%d control planes survive the loss of %d, as %d would: etcd needs a majority", n, (n-1)/2, n-1), valid)
	}
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
