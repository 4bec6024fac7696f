package enroll

import (
	"fmt"
	"slices"
	"strings"
)

// SystemDisk is where an installed machine lives.
type SystemDisk struct {
	Path   string `json:"path"` // /dev/nvme0n1
	Serial string `json:"serial,omitempty"`
	// Booted is the slot that it runs from, a or b; empty while it runs from RAM.
	Booted string `json:"booted,omitempty"`
	Good   string `json:"good,omitempty"` // the slot that is known to work
	// Trying is the slot that is booted next, or that runs and is not good yet.
	Trying string `json:"trying,omitempty"`
	Tries  int    `json:"tries,omitempty"` // how often Trying may still be booted
	Slots  []Slot `json:"slots,omitempty"`
	// Failure is why the last upgrade went back to the slot before.
	Failure string `json:"failure,omitempty"`
}

// Slot is one of the two places for a root image.
type Slot struct {
	Name     string `json:"name"`              // a or b
	Version  string `json:"version,omitempty"` // of its image; empty: nothing is in it
	RootHash string `json:"rootHash,omitempty"`
	// Kubernetes is the version that it has, v1.37.1; empty if an older Slipway wrote it.
	Kubernetes string `json:"kubernetes,omitempty"`
}

// WipeManifest lists all that an installation would write to, and what was
// found there. A person agrees to its hash.
type WipeManifest struct {
	Disks []WipeDisk `json:"disks,omitempty"`
	Hash  string     `json:"hash"` // SHA-256 of Text, in hex
	// Text is the manifest as a person reads it, in lines. It is all that the
	// agreement is about; Disks is the same for programs.
	Text string `json:"text"`
}

// WipeDisk is a disk with traces of something.
type WipeDisk struct {
	Path       string      `json:"path"`
	Size       uint64      `json:"size"` // bytes
	Model      string      `json:"model,omitempty"`
	Serial     string      `json:"serial,omitempty"`
	WWN        string      `json:"wwn,omitempty"`
	Signatures []Signature `json:"signatures,omitempty"`
}

// Signature is a trace of what is on a disk.
type Signature struct {
	Device string `json:"device"` // the disk, or a partition of it
	Type   string `json:"type"`   // gpt, ext4, LVM2_member, slipway, ...
	Label  string `json:"label,omitempty"`
	UUID   string `json:"uuid,omitempty"`
}

// Paths are the disks of the manifest.
func (w WipeManifest) Paths() string {
	var paths []string
	for _, d := range w.Disks {
		paths = append(paths, d.Path)
	}
	return strings.Join(paths, ", ")
}

// DiskSize is a number of bytes as disks are sold: in powers of 1000.
func DiskSize(bytes uint64) string {
	value, unit := float64(bytes), 0
	for value >= 1000 && unit < 5 {
		value, unit = value/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTP"[unit-1])
}

// DiskChanges says which disks came and which went: "new: vda 8.6 GB; gone: sdb
// 4.0 TB". It is empty when they are the same, whatever their order and names: a
// disk may have another's name after the next boot.
func DiskChanges(before, after []Disk) string {
	var parts []string
	if list := without(after, before); len(list) > 0 {
		parts = append(parts, "new: "+few(list))
	}
	if list := without(before, after); len(list) > 0 {
		parts = append(parts, "gone: "+few(list))
	}
	return strings.Join(parts, "; ")
}

// without is the disks of list that others lacks. Of disks that tell nothing to
// know them by, as many are taken for the same as there are in both.
func without(list, others []Disk) []Disk {
	others = slices.Clone(others)
	return slices.DeleteFunc(slices.Clone(list), func(d Disk) bool {
		same := slices.IndexFunc(others, func(o Disk) bool { o.Name = d.Name; return o == d })
		if same >= 0 {
			others = slices.Delete(others, same, same+1)
		}
		return same >= 0
	})
}

// few names the first of the disks, and how many more there are: an event has
// room for some.
func few(disks []Disk) string {
	const most = 4
	var names []string
	for _, d := range disks[:min(len(disks), most)] {
		names = append(names, d.Name+" "+DiskSize(d.Size))
	}
	if more := len(disks) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
