package early

import (
	"os"
	"path/filepath"
	"strings"
)

// partition is a part of a disk as the kernel shows it in sysfs.
type partition struct {
	name   string // the kernel's: vda3
	device string // /dev/vda3
	label  string // in the disk's table (GPT partition name)
	disk   string // the kernel's name of the disk: vda
}

// partitions lists those with a label. There is no udev here that would make
// links by label, and none is needed: the kernel tells the label in the
// device's uevent (PARTNAME).
func partitions(sys string) (list []partition) {
	entries, _ := filepath.Glob(filepath.Join(sys, "class/block/*"))
	for _, entry := range entries {
		event := readEvent(filepath.Join(entry, "uevent"))
		if event["DEVTYPE"] != "partition" || event["PARTNAME"] == "" {
			continue
		}
		// A partition's folder lies in that of its disk.
		real, err := filepath.EvalSymlinks(entry)
		if err != nil {
			continue // it has just gone
		}
		list = append(list, partition{
			name: filepath.Base(entry), device: "/dev/" + event["DEVNAME"],
			label: event["PARTNAME"], disk: filepath.Base(filepath.Dir(real)),
		})
	}
	return list
}

// readEvent reads the KEY=value lines of a uevent file; none if there is no such file.
func readEvent(path string) map[string]string {
	text, _ := os.ReadFile(path)
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			values[key] = value
		}
	}
	return values
}

// onDisk are the partitions of one disk.
func onDisk(list []partition, disk string) (left []partition) {
	for _, p := range list {
		if p.disk == disk {
			left = append(left, p)
		}
	}
	return left
}

// labelled is the partition of a disk with a label.
func labelled(list []partition, disk, label string) (partition, bool) {
	for _, p := range onDisk(list, disk) {
		if p.label == label {
			return p, true
		}
	}
	return partition{}, false
}
