package slot

import (
	"errors"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot/fat"
)

// giveBack is a program for a disk's first sector that tells the BIOS to go on
// with its next boot device: INT 18h, and if that ever returns, a loop. A sector
// of zeros would not do: it has the signature that a partition table needs, and
// so it is started.
var giveBack = [bootCode]byte{0xcd, 0x18, 0xeb, 0xfe}

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
	return writeBootCode(disk, giveBack[:])
}

// writeBootCode replaces the program in a disk's first sector, with one write.
func writeBootCode(disk fat.Device, code []byte) error {
	sector := make([]byte, 512)
	if _, err := disk.ReadAt(sector, 0); err != nil {
		return err
	}
	copy(sector, code[:bootCode])
	if _, err := disk.WriteAt(sector, 0); err != nil {
		return err
	}
	return disk.Sync()
}
