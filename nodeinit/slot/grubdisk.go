package slot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot/fat"
)

// GRUB outside of any file system: boot.img in the disk's first sector has in it
// where core.img begins, and core.img has in it where its own second sector is
// (GRUB's include/grub/i386/pc/boot.h). There is room for two of the latter, so
// that another one is written beside the one that boots, and the first sector,
// which is one write, decides.

const (
	// bootCode is how much of the first sector is a program; the disk's signature
	// and the old partition table follow.
	bootCode = disklayout.BootCode
	coreHint = 0x5c  // in boot.img, 64 bits: the sector where core.img begins
	restHint = 0x1f4 // in core.img, 64 bits: the sector after its first
)

// grubHalves are the places of core.img.
func grubHalves() [2]int64 {
	p := disklayout.System()[0]
	return [2]int64{p.Start, p.Start + p.Size/2}
}

// Install implements Loader. A configuration that is there already goes last: of
// an older one every newer GRUB can make sense.
func (l GRUB) Install(n disklayout.Slot) error {
	boot, err := staged(l.Boot, n.StagedGRUBBoot())
	if err != nil {
		return err
	}
	core, err := staged(l.Boot, n.StagedGRUBCore())
	if err != nil {
		return err
	}
	if len(boot) < bootCode || len(core) <= oneSector || int64(len(core)) > disklayout.System()[0].Size/2 {
		return fmt.Errorf("GRUB's images have %d and %d bytes: they are not what fits", len(boot), len(core))
	}
	config := []byte(disklayout.GRUBConfigText)
	if _, err := l.Boot.ReadFile(disklayout.GRUBConfig); err != nil {
		if err := replace(l.Boot, disklayout.GRUBConfig, config); err != nil {
			return err
		}
	}
	if err := writeGRUB(l.Disk, boot, core); err != nil {
		return err
	}
	return replace(l.Boot, disklayout.GRUBConfig, config)
}

// writeGRUB writes core.img beside the one that the first sector starts, if any,
// and then the first sector.
func writeGRUB(disk fat.Device, boot, core []byte) error {
	first := make([]byte, oneSector)
	if _, err := disk.ReadAt(first, 0); err != nil {
		return err
	}
	places := grubHalves()
	if at := int64(binary.LittleEndian.Uint64(first[coreHint:])) * oneSector; at == places[0] {
		slices.Reverse(places[:])
	}
	// The second is the one in use, if one is: is it the same already?
	boots, starts := placed(boot, core, places[1])
	have := make([]byte, len(starts))
	if _, err := disk.ReadAt(have, places[1]); err != nil {
		return err
	}
	if bytes.Equal(have, starts) && bytes.Equal(first[:bootCode], boots[:bootCode]) {
		return nil
	}
	boots, starts = placed(boot, core, places[0])
	if _, err := disk.WriteAt(starts, places[0]); err != nil {
		return err
	}
	if err := disk.Sync(); err != nil {
		return err
	}
	return writeBootCode(disk, boots)
}

// placed are the images as they are at a place of the disk.
func placed(boot, core []byte, at int64) (b, c []byte) {
	b, c = bytes.Clone(boot), bytes.Clone(core)
	binary.LittleEndian.PutUint64(b[coreHint:], uint64(at/oneSector))
	binary.LittleEndian.PutUint64(c[restHint:], uint64(at/oneSector+1))
	return b, c
}

// Unboot makes sure that no firmware boots from a disk; the partitions keep
// their content. boot is its boot partition, nil if that has no file system. It
// may be repeated.
func Unboot(disk fat.Device, boot Files) error {
	if boot != nil {
		for _, name := range []string{disklayout.RemovableLoader, disklayout.SystemdBoot} {
			if err := boot.Remove(name); err != nil && !errors.Is(err, fat.ErrDamaged) {
				return err
			}
		}
	}
	return writeBootCode(disk, disklayout.NoBoot[:])
}

// writeBootCode replaces the program in a disk's first sector, with one write.
func writeBootCode(disk fat.Device, code []byte) error {
	sector := make([]byte, oneSector)
	if _, err := disk.ReadAt(sector, 0); err != nil {
		return err
	}
	copy(sector, code[:bootCode])
	if _, err := disk.WriteAt(sector, 0); err != nil {
		return err
	}
	return disk.Sync()
}
