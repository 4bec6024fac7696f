package assign

import (
	"context"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/enroll"
)

// Report is what a machine says of itself. What is empty is as it was.
type Report struct {
	Events     []inventory.Event
	Phase      enroll.Phase
	WaitingFor string
	Applied    string // hex SHA-256 of the config that its units run with
	Etcd       *inventory.EtcdState
}

// Report takes a machine's report. That it is a voter of etcd is noted with the
// cluster in the same transaction: etcd will not be started anew then.
func (o *Office) Report(ctx context.Context, id, keyHash string, r Report) error {
	_, err := o.inventory.ChangeWith(ctx, id, func(tx *store.Tx, m *inventory.Machine) ([]inventory.Event, error) {
		if m.Enrolment.Approved.Hash != keyHash {
			return nil, ErrReplaced
		}
		*m = r.on(*m)
		m.LastSeen = o.now()
		if r.Etcd == nil || !r.Etcd.Voter || m.Cluster == "" {
			return r.Events, nil
		}
		kept, err := o.clusters.Load(tx, m.Cluster)
		if err != nil {
			return nil, err
		}
		kept.Etcd = kept.Etcd.voted(*m)
		return r.Events, o.clusters.Save(tx, m.Cluster, kept)
	})
	return err
}

// on is the machine after the report.
func (r Report) on(m inventory.Machine) inventory.Machine {
	if m.Enrolment.Released {
		return m // it has yet to hear that no cluster has it any more
	}
	if r.Phase != "" {
		m = m.Enter(r.Phase)
	}
	if r.WaitingFor != "" {
		m.WaitingFor = r.WaitingFor
	}
	if r.Applied != "" {
		m.Applied = r.Applied
	}
	if r.Etcd != nil {
		m.Etcd = *r.Etcd
	}
	return m
}
