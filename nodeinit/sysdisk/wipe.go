package sysdisk

import (
	"context"
	"errors"
	"os"
	"time"

	"slipway/configs/wipe"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/lifecycle"
	"slipway/nodeinit/slot"
)

// wipeDeadlines are how long a wipe may take. All of a large disk takes hours.
var wipeDeadlines = map[wipe.How]time.Duration{
	wipe.Metadata: time.Minute, wipe.Discard: 10 * time.Minute, wipe.Zero: 24 * time.Hour,
}

// Wipe is the last step of a reset: what Slipway wrote to the disk that the
// machine booted from is wiped, once nothing else runs. Partitions that Slipway
// did not make stay, and the partition table with them. The slot that runs
// loses what it is known by, whatever is asked for: the kernel still has it.
func Wipe(name string, how wipe.How) (*lifecycle.Step, error) {
	if name == "" {
		return nil, ErrFromRAM
	}
	do := func(ctx context.Context) error { return (&Disk{Name: name}).wipe(ctx, how) }
	return &lifecycle.Step{Name: "wipe the disk", Deadline: wipeDeadlines[how], Do: do}, nil
}

func (d *Disk) wipe(ctx context.Context, how wipe.How) error {
	dev, err := d.find()
	if err != nil {
		return err
	}
	file, err := os.OpenFile(dev.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unbootDisk(dev, file), file.Close()); err != nil {
		return err
	}
	return d.tools.Wipe(ctx, dev, how)
}

// CanWipe refuses a way of wiping that the disk which the machine booted from
// does not know.
func (d *Disk) CanWipe(how wipe.How) error {
	dev, err := d.find()
	if err != nil {
		return err
	}
	return d.tools.CanErase(dev, how)
}

// unbootDisk makes sure that no firmware boots from a disk.
func unbootDisk(dev disk.Disk, file *os.File) error {
	var files slot.Files
	if boot, err := openBoot(dev, os.O_RDWR); err == nil {
		defer boot.close()
		files = boot.volume
	}
	return slot.Unboot(file, files)
}
