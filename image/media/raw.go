package media

import (
	"bytes"
	"fmt"
	"os"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot"
)

// Raw writes an installed disk into an empty file: the system in slot A, and
// the loaders of both firmwares. The machine itself adds the partitions for its
// state and data at its first boot, when the size of the disk is known. The
// seed, such as the root hash, names the disk.
func Raw(f *os.File, seed string, from Artifacts) error {
	system := disklayout.System()[:4]
	last := system[len(system)-1]
	size := last.End() + disklayout.MiB // the second partition table
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := table(seed, system).Write(f, size); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	root, err := from("root.img")
	if err != nil {
		return err
	}
	if int64(len(root)) > disklayout.SlotBytes {
		return fmt.Errorf("the root image has %d bytes, a slot %d", len(root), disklayout.SlotBytes)
	}
	if _, err := f.WriteAt(root, system[2].Start); err != nil {
		return err
	}
	boot, err := makeFAT(f, system[1].Start, system[1].Size, disklayout.BootVolume)
	if err != nil {
		return err
	}
	for _, l := range []slot.Loader{slot.SystemdBoot{Boot: boot}, slot.GRUB{Boot: boot, Disk: section{f, 0}}} {
		if err := fill(l, from); err != nil {
			return fmt.Errorf("write the boot partition: %w", err)
		}
	}
	return nil
}

// fill puts the system into slot A, as good: there is no other to fall back to.
func fill(l slot.Loader, from Artifacts) error {
	for _, name := range l.Artifacts() {
		data, err := from(name)
		if err != nil {
			return err
		}
		if err := l.Put(disklayout.SlotA, name, int64(len(data)), bytes.NewReader(data)); err != nil {
			return err
		}
	}
	slots, err := l.Read()
	if err != nil {
		return err
	}
	if slots, err = slots.MarkedGood(disklayout.SlotA); err != nil {
		return err
	}
	if err := l.Write(slots); err != nil {
		return err
	}
	return l.Install(disklayout.SlotA)
}
