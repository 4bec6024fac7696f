package install

import (
	"context"
	"time"
)

// Reset takes Slipway off a machine: it leaves its cluster, and what Slipway
// wrote is wiped. Disks and partitions of the user stay. The machine comes back
// by network, as one that nobody has claimed.
//
// From the step "loader" on the disk does not boot. Until then a machine whose
// power was cut boots its slot as before and goes on with the reset, which its
// journal has; afterwards it comes back by network and runs from RAM, and goes on
// there as long as the state partition is left. The state is wiped last but
// for the partition table, which still says whose disk it was.
type Reset struct {
	Leave  func(ctx context.Context) error // leaves etcd, deletes the Node, stops what runs
	Tell   func(ctx context.Context) error // the boot service, which then offers the installer
	Unboot func(ctx context.Context) error // slot.Unboot of the disk
	// Wipe is done in this order: data, slots, boot partition, state, table.
	// disk.Erase says how.
	Wipe []Step

	Journal Journal
	Now     func() time.Time
	Told    func(step string)
}

// Operation returns the steps.
func (r Reset) Operation() Operation {
	steps := []Step{{"leave the cluster", r.Leave}, {"tell the boot service", r.Tell}, {"loader", r.Unboot}}
	for _, w := range r.Wipe {
		steps = append(steps, Step{"wipe " + w.Name, w.Do})
	}
	return Operation{Name: "reset", Steps: steps, Whole: true, Journal: r.Journal, Now: r.Now, Told: r.Told}
}
