package assign

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"slipway/bootsvc/inventory"
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
		m.Enrolment.Acknowledged, m.Enrolment.Bootstrapped = o.now(), true
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
	c, err := o.Get(ctx, m.Cluster)
	if err != nil {
		return Config{}, err
	}
	if missing := c.unaddressed(); missing != "" {
		return Config{Machine: m, WaitingFor: "control plane " + missing + " to enrol"}, nil
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

// controlPlanes are the cluster's control-plane machines, in its order.
func (c Cluster) controlPlanes() []inventory.Machine {
	return slices.DeleteFunc(slices.Clone(c.Machines), func(m inventory.Machine) bool { return m.Role != machine.ControlPlane })
}

// unaddressed is the first control plane whose address no key has vouched for.
func (c Cluster) unaddressed() string {
	for _, m := range c.controlPlanes() {
		if m.Enrolment.Approved.Hash == "" || !m.Address.IsValid() {
			return m.Hostname
		}
	}
	return ""
}

// endpoint is the API's address for people.
func endpoint(doc *cluster.Cluster, controlPlanes []inventory.Machine) string {
	switch {
	case doc.Endpoint != "":
		return doc.Endpoint
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
		config.Cluster.ControlPlanes = append(config.Cluster.ControlPlanes, plane.Address)
	}
	if place.Role == machine.ControlPlane {
		config.ControlPlaneKeys = keys.forControlPlane()
		config.Etcd = c.etcd(m, keys)
		if !*c.Document.ScheduleOnControlPlanes && !slices.Contains(config.Kubelet.Taints, controlPlaneTaint) {
			config.Kubelet.Taints = append(config.Kubelet.Taints, controlPlaneTaint)
		}
	}
	return config
}

// bootstraps says whether the machine is to start a new etcd cluster: the first
// control plane, once. Alone, with its state in RAM, it starts anew each time.
func (c Cluster) bootstraps(m inventory.Machine) bool {
	planes := c.controlPlanes()
	return planes[0].ID == m.ID && (len(planes) == 1 || !m.Enrolment.Bootstrapped)
}

func (c Cluster) etcd(m inventory.Machine, keys Keys) *machine.Etcd {
	e := &machine.Etcd{CA: keys.EtcdCA.Bundle(), CAKey: secret.New(string(keys.EtcdCA.KeyPEM)), Generation: 1}
	for _, plane := range c.controlPlanes() {
		e.Members = append(e.Members, machine.EtcdMember{Name: plane.Hostname, Address: plane.Address})
	}
	if c.bootstraps(m) {
		e.Bootstrap = &machine.EtcdBootstrap{Token: secret.New(keys.BootstrapToken)}
	}
	return e
}
