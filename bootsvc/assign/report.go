package assign

import (
	"context"
	"slices"
	"strings"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// Report is what a machine says of itself. What is empty is as it was.
type Report struct {
	Events     []inventory.Event
	Phase      enroll.Phase
	WaitingFor string
	Applied    string // hex SHA-256 of the config that its units run with
	Etcd       *inventory.EtcdState
	Disk       *enroll.SystemDisk // where it lives, if it does on a disk
	Wiped      bool               // it does no more: what was ours is wiped
	Facts      *enroll.Facts
	Trusts     string // the digest of the boot service's CAs that it trusts
}

// Report takes a machine's report. That it is a voter of etcd, or a control
// plane that is ready, is noted with the cluster in the same transaction: etcd
// will not be started anew then, and others may join. It returns the machine as
// it is afterwards.
func (o *Office) Report(ctx context.Context, id, keyHash string, r Report) (inventory.Machine, error) {
	return o.inventory.ChangeWith(ctx, id, func(tx *store.Tx, m *inventory.Machine) ([]inventory.Event, error) {
		if m.Enrolment.Approved.Hash != keyHash {
			return nil, ErrReplaced
		}
		events := slices.Concat(r.Events, r.disks(m.Facts.Disks, o.now()))
		*m = r.on(*m)
		m.LastSeen = o.now()
		if m.Cluster == "" || m.Role == machine.Worker {
			return events, nil
		}
		return events, o.note(tx, *m)
	})
}

// note has the cluster remember what a control plane or a member of etcd says.
func (o *Office) note(tx *store.Tx, m inventory.Machine) error {
	kept, err := o.clusters.Load(tx, m.Cluster)
	if err != nil {
		return err
	}
	kept.Etcd = kept.Etcd.voted(m).opened(m)
	return o.clusters.Save(tx, m.Cluster, kept)
}

// found says that a machine which runs from RAM found itself installed.
func (r Report) found() bool {
	return slices.ContainsFunc(r.Events, func(e inventory.Event) bool { return e.Name == "found" })
}

// disks is what the timeline is told of the disks, if they are not those before.
func (r Report) disks(before []enroll.Disk, now time.Time) []inventory.Event {
	if r.Facts == nil {
		return nil
	}
	changes := enroll.DiskChanges(before, r.Facts.Disks)
	if changes == "" {
		return nil
	}
	return []inventory.Event{{Name: "disks", Detail: changes, At: now}}
}

// on is the machine after the report.
func (r Report) on(m inventory.Machine) inventory.Machine {
	if r.Trusts != "" {
		m.Trusts = r.Trusts
	}
	if r.Facts != nil {
		m.Facts = *r.Facts
	}
	switch {
	case r.Wiped:
		m.Installation = inventory.Installation{}
	case r.Disk != nil:
		m = m.OnDisk(*r.Disk, r.found())
	}
	if m.Enrolment.Released {
		return m // it has yet to hear that no cluster has it any more
	}
	if r.Phase != "" {
		m = m.Enter(r.Phase)
	}
	if r.WaitingFor != "" {
		m.WaitingFor = r.WaitingFor
	}
	if r.Phase != "" && m.Cluster == "" { // it has a config, and not from here
		m.WaitingFor = unknownHere
	}
	// The machine knows what it waits for, and not by which words a person gives it.
	if wipe := m.Installation.Wipe; m.Phase == enroll.Installing && wipe.Hash != "" && strings.Contains(r.WaitingFor, wipe.Hash[:12]) {
		m = m.Asks(wipe)
	}
	if r.Applied != "" {
		m.Applied = r.Applied
	}
	if r.Etcd != nil {
		m.Etcd = *r.Etcd
	}
	return m
}
