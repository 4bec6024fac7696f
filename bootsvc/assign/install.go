package assign

import (
	"context"
	"fmt"

	"slipway/bootsvc/inventory"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// installOf is what a machine's config says of its disk: the document's word,
// what a person agreed to, and the image that it was told to install.
func installOf(wanted cluster.Install, m inventory.Machine) machine.Install {
	i := machine.Install{Disk: wanted.Disk, DataSize: wanted.DataSize}
	if i.OnDisk() {
		i.Wipe, i.Image = m.Installation.Agreed, m.Installation.Image
	}
	return i
}

// imaged is the machine as it is to be told of the image that is served now,
// unless it is installed: then it keeps what it was told.
func (o *Office) imaged(c Cluster, m inventory.Machine) inventory.Machine {
	for _, place := range c.Document.Machines {
		wanted := machine.Install{Disk: c.Document.InstallOf(place).Disk}
		if place.ID == m.ID && wanted.OnDisk() && m.Installation.Disk.Path == "" {
			m.Installation.Image = o.Image
		}
	}
	return m
}

// AskToWipe keeps what a machine would destroy if it were let.
func (o *Office) AskToWipe(ctx context.Context, id, keyHash string, w enroll.WipeManifest) error {
	_, err := o.inventory.Change(ctx, id, func(m *inventory.Machine) ([]inventory.Event, error) {
		if m.Enrolment.Approved.Hash != keyHash {
			return nil, ErrReplaced
		}
		asked := m.Installation.Wipe.Hash == w.Hash
		*m = m.Asks(w)
		m.LastSeen = o.now()
		if asked {
			return nil, nil
		}
		return []inventory.Event{{Name: "wipe-asked", Detail: fmt.Sprintf("%s, manifest %.12s", w.Paths(), w.Hash), At: o.now()}}, nil
	})
	return err
}
