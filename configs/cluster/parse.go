package cluster

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml"

	"slipway/configs/document"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// Parse reads a cluster document, fills in what was left out and checks it.
// Its errors, joined, are all that is wrong: `name:line:column: path: problem; valid: ...`.
func Parse(data []byte, name string) (*Cluster, error) {
	c := &Cluster{}
	source := document.Decode(data, name, c)
	c.fill()
	if err := source.Err(c.problems()); err != nil {
		return nil, err
	}
	return c, nil
}

// Marshal writes a cluster document as YAML.
func Marshal(c *Cluster) ([]byte, error) {
	data, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write cluster document %s: %w", c.Name, err)
	}
	return data, nil
}

// Validate reports all that is wrong with a document that is complete.
func (c *Cluster) Validate() error { return c.problems().Err() }

// fill gives every field that was left out its default, but for Endpoint:
// the first control-plane machine's address is known to the inventory only.
func (c *Cluster) fill() {
	if c.APIVersion == "" {
		c.APIVersion = machine.APIVersion
	}
	if c.Kind == "" {
		c.Kind = Kind
	}
	c.Network.fill()
	c.Etcd.Snapshots.fill()
	if c.CertificateLifetime == 0 {
		c.CertificateLifetime = machine.DefaultCertificateLifetime
	}
	fillMachines(c.Name, c.Machines)
	c.fillInstall()
	if c.ScheduleOnControlPlanes == nil {
		schedule := c.count(machine.Worker) == 0
		c.ScheduleOnControlPlanes = &schedule
	}
}

// fillInstall gives each machine's word on its disk what the cluster says. A
// machine that has another disk than the cluster's keeps the rest of it.
func (c *Cluster) fillInstall() {
	if c.Install.Disk == (machine.Disk{}) {
		c.Install.Disk.Word = machine.NoDisk
	}
	for _, m := range c.Machines {
		if m.Install == nil {
			continue
		}
		if m.Install.Disk == (machine.Disk{}) {
			m.Install.Disk = c.Install.Disk
		}
		if m.Install.DataSize == 0 && m.Install.Disk.Word != machine.NoDisk {
			m.Install.DataSize = c.Install.DataSize
		}
	}
}

func (n *Network) fill() {
	if !n.PodSubnet.IsValid() {
		n.PodSubnet = DefaultPodSubnet
	}
	if !n.ServiceSubnet.IsValid() {
		n.ServiceSubnet = DefaultServiceSubnet
	}
	if n.DNSDomain == "" {
		n.DNSDomain = DefaultDNSDomain
	}
}

// Defaults of the snapshots that are taken by themselves.
const (
	DefaultSnapshotEvery = 6 * time.Hour
	DefaultSnapshotKeep  = 28
)

func (s *Snapshots) fill() {
	if s.Every == 0 {
		s.Every = DefaultSnapshotEvery
	}
	if s.Keep == 0 {
		s.Keep = DefaultSnapshotKeep
	}
}

func fillMachines(cluster string, machines []Machine) {
	count := map[machine.Role]int{}
	short := map[machine.Role]string{machine.ControlPlane: "cp", machine.Worker: "worker", machine.EtcdOnly: "etcd"}
	for i := range machines {
		m := &machines[i]
		if id, err := enroll.ParseMachineID(m.ID); err == nil {
			m.ID = id
		}
		if m.Role == "" {
			m.Role = machine.Worker
			if i == 0 {
				m.Role = machine.ControlPlane
			}
		}
		count[m.Role]++
		if m.Hostname == "" {
			m.Hostname = fmt.Sprintf("%s-%s-%d", cluster, short[m.Role], count[m.Role])
		}
	}
}

func (c *Cluster) count(role machine.Role) (n int) {
	for _, m := range c.Machines {
		if m.Role == role {
			n++
		}
	}
	return n
}
