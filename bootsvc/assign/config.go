package assign

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/configs/secret"
)

// controlPlaneTaint keeps ordinary workloads off a control-plane node.
const controlPlaneTaint = "node-role.kubernetes.io/control-plane:NoSchedule"

// Config is what a machine gets: its config as YAML, or what it waits for.
type Config struct {
	YAML       []byte
	WaitingFor string
	Machine    inventory.Machine
}

// Fetch blocks until the machine's config can be given, or for at most wait:
// then it says what is missing. keyHash is the key that the machine proved.
func (o *Office) Fetch(ctx context.Context, id, keyHash string, wait time.Duration) (Config, error) {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var config Config
	err := o.inventory.WaitFor(limited, func() (done bool, err error) {
		config, err = o.render(ctx, id, keyHash)
		return config.YAML != nil, err
	})
	if err != nil && limited.Err() != nil && ctx.Err() == nil && config.WaitingFor != "" {
		return config, nil
	}
	return config, err
}

// Acknowledge records that the machine has stored its config. It may be repeated.
func (o *Office) Acknowledge(ctx context.Context, id, keyHash string) error {
	_, err := o.inventory.Change(ctx, id, func(m *inventory.Machine) ([]inventory.Event, error) {
		switch {
		case m.Enrolment.Approved.Hash != keyHash:
			return nil, ErrReplaced
		case !m.Enrolment.Acknowledged.IsZero():
			return nil, nil
		}
		m.Enrolment.Acknowledged = o.now()
		if m.Phase == enroll.Assigned { // its reports may have been faster
			*m = m.Enter(enroll.Joining)
		}
		return []inventory.Event{{Name: "configured", Detail: m.Hostname, At: o.now()}}, nil
	})
	return err
}

// render makes the machine's config from what is known now.
func (o *Office) render(ctx context.Context, id, keyHash string) (Config, error) {
	m, err := o.inventory.Get(ctx, id)
	if err != nil {
		return Config{}, err
	}
	switch {
	case m.Enrolment.Approved.Hash != keyHash:
		return Config{}, ErrReplaced
	case !m.Enrolment.Acknowledged.IsZero():
		return Config{}, ErrDelivered
	case m.Cluster == "":
		return Config{Machine: m, WaitingFor: "a cluster to claim this machine"}, nil
	}
	c, err := o.settle(ctx, m.Cluster)
	if err != nil {
		return Config{}, err
	}
	if missing := c.unaddressed(); missing != "" {
		return Config{Machine: m, WaitingFor: missing + " to enrol"}, nil
	}
	if words, gone := c.Etcd.trouble(c.members()); gone && m.Role != machine.Worker {
		return Config{Machine: m, WaitingFor: words}, nil
	}
	keys, err := o.keys.Get(ctx, m.Cluster)
	if err != nil {
		return Config{}, err
	}
	config := c.configFor(m, keys, o.machineCA)
	if err := config.Validate(); err != nil {
		return Config{}, fmt.Errorf("render config of %s: %w", id, err)
	}
	text, err := machine.Marshal(config)
	return Config{Machine: m, YAML: text}, err
}

// settle decides who starts the cluster's etcd, and stores it before any config
// says so. The cluster it returns has its control planes and members of etcd.
func (o *Office) settle(ctx context.Context, name string) (c Cluster, err error) {
	err = o.store.Atomically(ctx, func(tx *store.Tx) error {
		var kept record
		if c, kept, err = o.load(tx, name); err != nil {
			return err
		}
		if c.unaddressed() != "" {
			return nil
		}
		kept.Etcd = kept.Etcd.next(c.members())
		c.Etcd = kept.Etcd
		return o.clusters.Save(tx, name, kept)
	})
	return c, err
}

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

// endpoint is the API's address for people.
func endpoint(doc *cluster.Cluster, controlPlanes []inventory.Machine) string {
	switch {
	case doc.Endpoint != "":
		return doc.Endpoint
	case doc.VirtualIP.IsValid():
		return "https://" + netip.AddrPortFrom(doc.VirtualIP, 6443).String()
	case len(controlPlanes) == 0 || !controlPlanes[0].Address.IsValid():
		return ""
	}
	return "https://" + netip.AddrPortFrom(controlPlanes[0].Address, 6443).String()
}

// configFor is pure: the config of one machine of the cluster.
func (c Cluster) configFor(m inventory.Machine, keys Keys, machineCA string) *machine.Config {
	place := c.Document.Machines[slices.IndexFunc(c.Document.Machines, func(p cluster.Machine) bool { return p.ID == m.ID })]
	config := &machine.Config{
		APIVersion: machine.APIVersion,
		Kind:       machine.Kind,
		Hostname:   place.Hostname,
		Role:       place.Role,
		Install:    machine.Install{Disk: "none"},
		Kubelet:    machine.Kubelet{Labels: place.Labels, Taints: slices.Clone(place.Taints)},
		Cluster: machine.Cluster{
			Name:                c.Document.Name,
			Endpoint:            c.Endpoint,
			VirtualIP:           c.Document.VirtualIP,
			PodSubnet:           c.Document.Network.PodSubnet,
			ServiceSubnet:       c.Document.Network.ServiceSubnet,
			DNSDomain:           c.Document.Network.DNSDomain,
			CA:                  keys.CA.Bundle(),
			MachineCA:           machineCA,
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
