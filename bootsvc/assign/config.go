package assign

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"slipway/bootsvc/inventory"
	"slipway/configs/cluster"
	"slipway/configs/machine"
	"slipway/configs/secret"
)

// controlPlaneTaint keeps ordinary workloads off a control-plane node.
const controlPlaneTaint = "node-role.kubernetes.io/control-plane:NoSchedule"

// controlPlanes are the cluster's control-plane machines, in its order.
func (c Cluster) controlPlanes() []inventory.Machine {
	return slices.DeleteFunc(slices.Clone(c.Machines), func(m inventory.Machine) bool { return m.Role != machine.ControlPlane })
}

// members are the machines that are to run a member of etcd, in its order.
func (c Cluster) members() (members []inventory.Machine) {
	for _, place := range c.Document.EtcdMachines() {
		at := slices.IndexFunc(c.Machines, func(m inventory.Machine) bool { return m.ID == place.ID })
		members = append(members, c.Machines[at])
	}
	return members
}

// unaddressed names the first machine whose address all others must know and no
// key has vouched for. Only before etcd's first start are all of them waited
// for: later, a machine that never comes must not keep the others from theirs.
func (c Cluster) unaddressed() string {
	planes := c.controlPlanes()
	for _, m := range append(planes, c.members()...) {
		if (c.Etcd.Generation == 0 || len(planes) == 1) && !addressed(m) {
			return place(m.Role) + " " + m.Hostname
		}
	}
	return ""
}

func place(role machine.Role) string {
	if role == machine.EtcdOnly {
		return "etcd machine"
	}
	return "control plane"
}

// addressed says that a key has vouched for the machine's address.
func addressed(m inventory.Machine) bool {
	return m.Enrolment.Approved.Hash != "" && m.Address.IsValid()
}

// endpoint is the API's address for people: the first control plane's that is known.
func endpoint(doc *cluster.Cluster, controlPlanes []inventory.Machine) string {
	switch {
	case doc.Endpoint != "":
		return doc.Endpoint
	case doc.VirtualIP.IsValid():
		return "https://" + netip.AddrPortFrom(doc.VirtualIP, 6443).String()
	}
	at := slices.IndexFunc(controlPlanes, func(m inventory.Machine) bool { return m.Address.IsValid() })
	if at < 0 {
		return ""
	}
	return "https://" + netip.AddrPortFrom(controlPlanes[at].Address, 6443).String()
}

// handout is a machine's config as it is handed out.
type handout struct {
	text   []byte // YAML
	digest string // its SHA-256, hex
	// generation is that of etcd in it; 0 without one of our own.
	generation int
}

// render makes a machine's config. It is pure: the same cluster gives the same bytes.
func (c Cluster) render(m inventory.Machine, keys Keys) (handout, error) {
	config := c.configFor(m, keys)
	if err := config.Validate(); err != nil {
		return handout{}, fmt.Errorf("render config of %s: %w", m.ID, err)
	}
	text, err := machine.Marshal(config)
	if err != nil {
		return handout{}, err
	}
	sum := sha256.Sum256(text)
	r := handout{text: text, digest: hex.EncodeToString(sum[:])}
	if config.Etcd != nil {
		r.generation = config.Etcd.Generation
	}
	return r, nil
}

// configFor is pure: the config of one machine of the cluster.
func (c Cluster) configFor(m inventory.Machine, keys Keys) *machine.Config {
	place := c.Document.Machines[slices.IndexFunc(c.Document.Machines, func(p cluster.Machine) bool { return p.ID == m.ID })]
	config := &machine.Config{
		APIVersion: machine.APIVersion,
		Kind:       machine.Kind,
		Hostname:   place.Hostname,
		Role:       place.Role,
		Install:    installOf(c.Document.InstallOf(place), m),
		Kubelet:    machine.Kubelet{Labels: place.Labels, Taints: slices.Clone(place.Taints)},
		Cluster: machine.Cluster{
			Name:                c.Document.Name,
			Endpoint:            c.Endpoint,
			VirtualIP:           c.Document.VirtualIP,
			PodSubnet:           c.Document.Network.PodSubnet,
			ServiceSubnet:       c.Document.Network.ServiceSubnet,
			DNSDomain:           c.Document.Network.DNSDomain,
			CA:                  keys.CA.Bundle(),
			MachineCA:           c.machineCA,
			BootstrapToken:      secret.New(keys.BootstrapToken),
			CertificateLifetime: c.Document.CertificateLifetime,
		},
	}
	for _, plane := range c.controlPlanes() {
		if addressed(plane) {
			config.Cluster.ControlPlanes = append(config.Cluster.ControlPlanes, plane.Address)
		}
	}
	if place.Role != machine.Worker {
		config.Etcd = c.etcd(m, keys)
	}
	if place.Role == machine.ControlPlane {
		config.ControlPlaneKeys = keys.forControlPlane()
		if !*c.Document.ScheduleOnControlPlanes && !slices.Contains(config.Kubelet.Taints, controlPlaneTaint) {
			config.Kubelet.Taints = append(config.Kubelet.Taints, controlPlaneTaint)
		}
	}
	return config
}

// etcd is a control plane's or a member's view of etcd, in each of the three
// topologies: members on the control planes, on machines of their own, or
// someone else's.
func (c Cluster) etcd(m inventory.Machine, keys Keys) *machine.Etcd {
	if e := c.Document.Etcd.External; e != nil {
		return &machine.Etcd{CA: e.CA, External: &machine.EtcdExternal{Endpoints: e.Endpoints, Cert: e.Cert, Key: e.Key}}
	}
	e := &machine.Etcd{
		CA: keys.EtcdCA.Bundle(), CAKey: secret.New(string(keys.EtcdCA.KeyPEM)),
		Generation: c.Etcd.Generation, AllowSlowDisk: c.Document.Etcd.AllowSlowDisk,
	}
	for _, member := range c.members() {
		if addressed(member) {
			e.Members = append(e.Members, machine.EtcdMember{Name: member.Hostname, Address: member.Address})
		}
	}
	// It stays in the config when it is done: the machine's record of it says so.
	if grant := c.Etcd.Grant; grant.holds(m) {
		e.Bootstrap = &machine.EtcdBootstrap{Token: secret.New(grant.Token), Snapshot: grant.Snapshot, Recover: grant.Recover}
	}
	return e
}
