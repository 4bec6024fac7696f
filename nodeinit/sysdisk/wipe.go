package sysdisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/lifecycle"
	"slipway/nodeinit/slot"
)

// wipeDeadlines are how long a wipe may take. All of a large disk takes hours.
var wipeDeadlines = map[disk.Erase]time.Duration{
	disk.Metadata: time.Minute, disk.Discard: 10 * time.Minute, disk.Zero: 24 * time.Hour,
}

// Wipe is the last step of a reset: what Slipway wrote to the disk that the
// machine booted from is wiped, once nothing else runs. Partitions that Slipway
// did not make stay, and the partition table with them. The slot that runs
// loses what it is known by, whatever is asked for: the kernel still has it.
func Wipe(name, how string) (*lifecycle.Step, error) {
	erase := disk.Erase(how)
	deadline, known := wipeDeadlines[erase]
	if !known {
		return nil, fmt.Errorf("wipe %q: want %s, %s or %s", how, disk.Metadata, disk.Discard, disk.Zero)
	}
	if name == "" {
		return nil, ErrFromRAM
	}
	do := func(ctx context.Context) error { return (&Disk{Name: name}).wipe(ctx, erase) }
	return &lifecycle.Step{Name: "wipe the disk", Deadline: deadline, Do: do}, nil
}

// wiped is the order. The disk does not boot from the first write on, and what
// says whose it is goes last: who finds the disk half wiped can tell.
var wiped = []string{
	disklayout.DataLabel, disklayout.SlotALabel, disklayout.SlotBLabel,
	disklayout.BootLabel, disklayout.BIOSLabel, disklayout.StateLabel,
}

func (d *Disk) wipe(ctx context.Context, how disk.Erase) error {
	dev, err := d.find()
	if err != nil {
		return err
	}
	file, err := os.OpenFile(dev.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unbootDisk(dev, file); err != nil {
		return err
	}
	for _, label := range wiped {
		p, ok := dev.Partition(label)
		if !ok {
			continue
		}
		if err := disk.ErasePartition(ctx, p, how); err != nil {
			err = errors.Join(err, clearEdges(file, p.Start, p.Size)) // the slot that runs
			if label != disklayout.SlotALabel && label != disklayout.SlotBLabel {
				return err
			}
		}
	}
	others := func(p disk.Partition) bool { return !slices.Contains(wiped, p.Label) }
	if slices.ContainsFunc(dev.Partitions, others) {
		return file.Sync()
	}
	return clearEdges(file, 0, dev.Size)
}

// unbootDisk makes sure that no firmware boots from a disk.
func unbootDisk(dev disk.Disk, file *os.File) error {
	var files slot.Files
	if boot, err := openBoot(dev); err == nil {
		defer boot.close()
		files = boot.volume
	}
	return slot.Unboot(file, files)
}

// clearEdges writes zeros where a part of a disk has what it is known by.
func clearEdges(file *os.File, start, size int64) error {
	zeros := make([]byte, min(disklayout.MiB, size))
	_, first := file.WriteAt(zeros, start)
	_, last := file.WriteAt(zeros, start+size-int64(len(zeros)))
	return errors.Join(first, last, file.Sync())
}
