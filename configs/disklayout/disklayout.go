// Package disklayout is the disk of an installed machine as data: which
// partitions it has, how large, under which labels, and where the boot
// partition keeps its files. It writes nothing. The node's installer and the
// builder of raw disk images both follow it, so that a disk looks the same
// however it was made.
package disklayout

import (
	"errors"
	"fmt"
)

const (
	// MiB is the unit of all sizes; partitions begin at multiples of it, which
	// every sector size and every flash page divides.
	MiB = int64(1) << 20

	// SmallestDisk is the least size of a disk that is installed to.
	SmallestDisk = 6 << 10 * MiB
	// SmallestData is the least size of a data partition: less does not hold
	// etcd's database and the kubelet's own minimum of free space.
	SmallestData = 4 << 10 * MiB
	// SlotBytes is the size of each slot, the limit of a root image with its
	// hash tree.
	SlotBytes = 512 * MiB
)

// Labels of the partitions, in their order on the disk. They are the GPT's
// partition names; the kernel shows them as PARTNAME.
const (
	BIOSLabel  = "slipway-bios"
	BootLabel  = "slipway-boot"
	SlotALabel = "slipway-a"
	SlotBLabel = "slipway-b"
	StateLabel = "slipway-state" // also the label of its ext4
	DataLabel  = "slipway-data"  // also the label of its ext4
)

// BootVolume is the FAT label of the boot partition; GRUB finds it by that.
const BootVolume = "SLIPWAY"

// Partition types (UEFI specification 5.3.3; the Discoverable Partitions
// Specification; GRUB's manual for BIOS boot).
const (
	TypeBIOSBoot  = "21686148-6449-6E6F-744E-656564454649"
	TypeESP       = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	TypeLinuxRoot = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709" // x86-64
	TypeLinuxData = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

// Partition is one entry of the partition table. Start and Size are bytes and
// multiples of MiB.
type Partition struct {
	Number      int // from 1
	Label       string
	Type        string // GUID
	Start, Size int64
}

// End is the first byte behind the partition.
func (p Partition) End() int64 { return p.Start + p.Size }

// System is what every Slipway disk begins with, at the same place on each:
// all but the data partition. A raw image has the first four; the machine adds
// the others at its first boot.
func System() []Partition {
	list := []Partition{
		{Label: BIOSLabel, Type: TypeBIOSBoot, Size: MiB},
		{Label: BootLabel, Type: TypeESP, Size: 512 * MiB},
		{Label: SlotALabel, Type: TypeLinuxRoot, Size: SlotBytes},
		{Label: SlotBLabel, Type: TypeLinuxRoot, Size: SlotBytes},
		{Label: StateLabel, Type: TypeLinuxData, Size: 64 * MiB},
	}
	next := MiB // the first holds the partition table
	for i := range list {
		list[i].Number, list[i].Start = i+1, next
		next = list[i].End()
	}
	return list
}

// DataSizeArgument is the kernel argument by which a raw image says how large the
// machine makes its data partition: a size such as 100GiB.
const DataSizeArgument = "slipway.data-size"

// Errors of Plan, for callers that tell a person what to change.
var (
	ErrDiskTooSmall = errors.New("the disk is too small")
	ErrDataSize     = errors.New("the data partition's size does not fit")
)

// Plan returns the partitions of a disk. A data size of 0 takes the rest of the
// disk; with any other, what is behind it stays free for the user's volumes.
// The last MiB is left for the second copy of the partition table.
func Plan(diskBytes, dataBytes int64) ([]Partition, error) {
	if diskBytes < SmallestDisk {
		return nil, fmt.Errorf("%w: it has %d MiB, Slipway wants at least %d MiB", ErrDiskTooSmall, diskBytes/MiB, SmallestDisk/MiB)
	}
	list := System()
	start := list[len(list)-1].End()
	free := (diskBytes/MiB-1)*MiB - start
	size := dataBytes / MiB * MiB
	if dataBytes == 0 {
		size = free
	}
	if size < SmallestData || size > free {
		return nil, fmt.Errorf("%w: %d MiB were asked for, this disk takes %d to %d MiB", ErrDataSize, dataBytes/MiB, SmallestData/MiB, free/MiB)
	}
	return append(list, Partition{Number: len(list) + 1, Label: DataLabel, Type: TypeLinuxData, Start: start, Size: size}), nil
}
