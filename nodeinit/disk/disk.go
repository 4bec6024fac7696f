// Package disk is what a node knows of disks and does to them: which there are,
// which one a rule chooses, what lies on it that is not ours, and the partition
// table and file systems of an installation.
//
// Reading is apart from writing. Inventory, Choose and Manifest are pure or
// only read. All writing goes through Held, a disk that was taken for its own,
// after a person agreed to what is lost; no other disk can be reached from it.
//
// The steps of an installation (package install) and the node agent call it.
// Where partitions lie is not decided here but in configs/disklayout, and what
// is in the slots is package slot's business.
package disk

import (
	"fmt"
	"strings"

	"slipway/configs/enroll"
)

// Type is the kind of a disk.
type Type string

// The types. Virtual is what a hypervisor emulates, whatever is below it; an
// NVMe disk is NVMe also when it is emulated.
const (
	NVMe    Type = "nvme"
	SSD     Type = "ssd"
	HDD     Type = "hdd"
	Virtual Type = "virtual"
)

// Disk is a whole block device that an operating system could live on.
type Disk struct {
	Name, Path         string // sda, /dev/sda: may be another disk's after the next boot
	Model, Serial, WWN string // empty: the disk does not tell
	Size, SectorSize   int64  // bytes; SectorSize is the logical one, the unit of partition tables
	Type               Type
	Removable          bool // removable, or on USB
	ReadOnly           bool
	// Uses says why the disk must not be written; empty: nothing uses it.
	Uses       []string
	Partitions []Partition // as the kernel knows them, by number
}

// Partition is a part of a disk that has a device node. Start and Size are bytes.
type Partition struct {
	Name, Path  string
	Label       string // the partition table's name for it, not its file system's
	Number      int
	Start, Size int64
}

// Partition returns the disk's partition of a label.
func (d Disk) Partition(label string) (Partition, bool) {
	for _, p := range d.Partitions {
		if p.Label == label {
			return p, true
		}
	}
	return Partition{}, false
}

// String is the disk as people tell it from others.
func (d Disk) String() string {
	parts := []string{size(d.Size), string(d.Type)}
	if d.Model != "" {
		parts = append(parts, d.Model)
	}
	if d.Serial != "" {
		parts = append(parts, "serial "+d.Serial)
	}
	return fmt.Sprintf("%s (%s)", d.Path, strings.Join(parts, ", "))
}

// size is a number of bytes as disks are sold.
func size(bytes int64) string { return enroll.DiskSize(uint64(bytes)) }
