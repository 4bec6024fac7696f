package install

import (
	"context"
	"time"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot"
)

// Disk is the disk that is installed to: chosen, and what is lost agreed to.
type Disk interface {
	// Partition gives it its partitions. On a disk with an installation of this
	// machine, a half of one too, they keep their content.
	Partition(ctx context.Context) error
	// Filesystems makes those of state and data, and mounts them. Those that are
	// this machine's already are only mounted.
	Filesystems(ctx context.Context) error
	// Unboot makes sure that no firmware boots from it: slot.Unboot.
	Unboot(ctx context.Context) error
	// Boot makes the boot partition's, which is empty then.
	Boot(ctx context.Context) error
}

// Install brings the first system to a disk: into slot A. The machine runs from
// RAM. From the step "old loader" to the last the disk does not boot, so a
// machine whose power was cut comes back by network, runs from RAM again, and
// goes on. The first two steps are always done, since they lead to the journal.
type Install struct {
	System
	Disk Disk
	// State writes what makes the machine itself to the state partition: its key
	// and certificates, the configuration.
	State func(ctx context.Context) error

	Journal Journal
	Now     func() time.Time
	Told    func(step string)
}

const installName = "install"

// loaderStep is the last one: the disk boots from then on.
const loaderStep = "loader"

// Operation returns the steps.
func (i Install) Operation() Operation {
	const n = disklayout.SlotA
	steps := []Step{
		{"partitions", i.Disk.Partition},
		{"file systems", i.Disk.Filesystems},
		{"old loader", i.Disk.Unboot},
		{"boot partition", i.Disk.Boot},
	}
	steps = append(steps, i.System.steps(n)...)
	steps = append(steps,
		Step{"state", i.State},
		Step{"first slot", func(context.Context) error { return i.good(n) }},
		Step{loaderStep, i.loader},
	)
	return Operation{
		Name: installName, Steps: steps, Whole: true,
		About:   Record{Key: i.Image.SHA256, Version: i.Image.Version, Slot: n},
		Journal: i.Journal, Now: i.Now, Told: i.Told,
	}
}

// good marks the first slot good without a trial: there is nothing to fall back
// to, and a machine that cannot boot it comes back by network.
func (i Install) good(n disklayout.Slot) error {
	loader, err := i.Loader()
	if err != nil {
		return err
	}
	return change(loader, func(s slot.Slots) (slot.Slots, error) { return s.MarkedGood(n) })
}

func (i Install) loader(context.Context) error {
	loader, err := i.Loader()
	if err != nil {
		return err
	}
	return loader.Install(disklayout.SlotA)
}
