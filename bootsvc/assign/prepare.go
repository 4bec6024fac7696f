package assign

import (
	"slices"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// prepares says that a machine that waits for its first config may start what
// every node runs, whatever its config: it has less to do when its turn comes.
// Control planes do so one after the other, in the document's order, and workers
// after them: where machines share a computer, the control plane that sets the
// cluster up keeps half of two cores to itself. A machine that is to install
// itself runs from its disk when it is a node.
func (c Cluster) prepares(m inventory.Machine, now time.Time) bool {
	at := slices.IndexFunc(c.Document.Machines, func(p cluster.Machine) bool { return p.ID == m.ID })
	if m.Role == machine.EtcdOnly || at < 0 || installOf(c.Document.InstallOf(c.Document.Machines[at]), m).OnDisk() {
		return false
	}
	for _, p := range c.controlPlanes() {
		switch {
		case p.ID == m.ID:
			return true
		case p.Phase == enroll.Assigned && !p.Prepared && !p.Silent(now):
			return false
		}
	}
	return true
}
