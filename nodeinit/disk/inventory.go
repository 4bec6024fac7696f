package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// sysfsSector is the unit of sizes and starts in sysfs, whatever the disk's own
// sectors are (Documentation/ABI/stable/sysfs-block).
const sysfsSector = 512

// Inventory lists the disks that the kernel knows, by name. The file system is
// the machine's root, with sys and proc mounted. What a disk does not tell is
// left empty; an error means that there is no list at all, or that it is not
// known what is in use.
func Inventory(root fs.FS) ([]Disk, error) {
	entries, err := fs.ReadDir(root, "sys/block")
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	used, err := readUses(root)
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var list []Disk
	for _, e := range entries {
		if s := (sysfs{root, path.Join("sys/block", e.Name())}); isDisk(s, e.Name()) {
			list = append(list, read(s, e.Name(), used))
		}
	}
	slices.SortFunc(list, func(a, b Disk) int { return compareNames(a.Name, b.Name) })
	return list, nil
}

// isDisk leaves out what has no hardware of its own (loop, ram, zram, dm, md,
// nbd), what is no disk (optical drives, floppies, the boot areas of an eMMC),
// the hidden paths of an NVMe disk, and drives without a medium.
func isDisk(s sysfs, name string) bool {
	for _, prefix := range []string{"loop", "ram", "zram", "dm-", "md", "nbd", "sr", "fd", "mtdblock", "zd"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && strings.Trim(rest, "0123456789") == "" {
			return false
		}
	}
	if strings.HasPrefix(name, "mmcblk") && strings.Contains(name, "boot") {
		return false
	}
	return s.has("device") && s.text("hidden") != "1" && s.number("size") > 0
}

func read(s sysfs, name string, used uses) Disk {
	d := Disk{
		Name: name, Path: "/dev/" + strings.ReplaceAll(name, "!", "/"), // cciss!c0d0 is /dev/cciss/c0d0
		Model:      s.text("device/model"),
		Serial:     serial(s),
		WWN:        wwn(s),
		Size:       s.number("size") * sysfsSector,
		SectorSize: cmp.Or(s.number("queue/logical_block_size"), sysfsSector),
		Removable:  s.text("removable") == "1" || s.onUSB(),
		ReadOnly:   s.text("ro") == "1",
	}
	d.Type = kind(s, name, d.Model)
	d.Partitions = partitions(s)
	d.Uses = used.of(s, name)
	for _, p := range d.Partitions {
		d.Uses = append(d.Uses, used.of(s.below(p.Name), p.Name)...)
	}
	return d
}

// kind tells the types apart. A disk in a virtual machine says who emulates it
// in its vendor or model; whether it spins there means nothing.
func kind(s sysfs, name, model string) Type {
	who := strings.ToLower(s.text("device/vendor") + " " + model)
	switch {
	case strings.HasPrefix(name, "nvme"):
		return NVMe
	case strings.HasPrefix(name, "vd"), strings.HasPrefix(name, "xvd"):
		return Virtual
	case slices.ContainsFunc([]string{"qemu", "vmware", "vbox", "msft", "virtual"}, func(mark string) bool { return strings.Contains(who, mark) }):
		return Virtual
	case s.text("queue/rotational") == "1":
		return HDD
	default:
		return SSD
	}
}

// serial is where virtio, NVMe and eMMC, or SCSI and SATA tell it: the latter
// in the vital product data page 80h, behind four bytes of header (SPC-4 7.8.17).
func serial(s sysfs) string {
	if text := cmp.Or(s.text("serial"), s.text("device/serial")); text != "" {
		return text
	}
	page, _ := fs.ReadFile(s.root, path.Join(s.dir, "device/vpd_pg80"))
	if len(page) <= 4 {
		return ""
	}
	return strings.TrimSpace(strings.Trim(string(page[4:]), "\x00"))
}

// wwn is the disk's name that no other disk in the world has. A SCSI disk
// without one is named by the kernel after its model (t10), which is no proof.
func wwn(s sysfs) string {
	id := cmp.Or(s.text("wwid"), s.text("device/wwid"))
	if strings.HasPrefix(id, "t10.") {
		return ""
	}
	return strings.ToLower(id)
}

// partitions are the directories with a partition's number in them.
func partitions(s sysfs) []Partition {
	entries, _ := fs.ReadDir(s.root, s.dir)
	var list []Partition
	for _, e := range entries {
		p := s.below(e.Name())
		number := p.number("partition")
		if number == 0 {
			continue
		}
		list = append(list, Partition{
			Name: e.Name(), Path: "/dev/" + strings.ReplaceAll(e.Name(), "!", "/"),
			Label:  p.variable("PARTNAME"),
			Number: int(number),
			Start:  p.number("start") * sysfsSector, Size: p.number("size") * sysfsSector,
		})
	}
	slices.SortFunc(list, func(a, b Partition) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

// compareNames sorts as the kernel counts: sdb before sdaa, nvme2n1 before nvme10n1.
func compareNames(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// sysfs is a device's directory.
type sysfs struct {
	root fs.FS
	dir  string
}

func (s sysfs) below(name string) sysfs { return sysfs{s.root, path.Join(s.dir, name)} }

func (s sysfs) has(name string) bool {
	_, err := fs.Stat(s.root, path.Join(s.dir, name))
	return err == nil
}

// text is a file's content without white space around it, empty if there is none.
func (s sysfs) text(name string) string {
	data, _ := fs.ReadFile(s.root, path.Join(s.dir, name))
	return strings.TrimSpace(string(data))
}

func (s sysfs) number(name string) int64 {
	n, _ := strconv.ParseInt(s.text(name), 10, 64)
	return n
}

// variable is one of the variables that the kernel tells with the device's events.
func (s sysfs) variable(name string) string {
	for line := range strings.Lines(s.text("uevent")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return value
		}
	}
	return ""
}

// onUSB looks at the device's place: sysfs links a disk to where its bus is.
func (s sysfs) onUSB() bool {
	link, err := fs.ReadLink(s.root, s.dir)
	return err == nil && strings.Contains(link, "/usb")
}

// uses is what of the system uses which device.
type uses struct {
	mounts map[string][]string // by device number and by path
	swaps  map[string]bool     // by path
}

// readUses reads what is mounted (proc_pid_mountinfo(5)) and what is swapped to.
func readUses(root fs.FS) (uses, error) {
	u := uses{map[string][]string{}, map[string]bool{}}
	mounts, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, device := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(device) < 2 {
			continue
		}
		// btrfs has a number of its own for what is mounted; its source is right.
		for _, key := range slices.Compact([]string{fields[2], device[1]}) {
			u.mounts[key] = append(u.mounts[key], fields[4])
		}
	}
	swaps, err := fs.ReadFile(root, "proc/swaps")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel may have no swap at all
		return u, err
	}
	for line := range strings.Lines(string(swaps)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			u.swaps[fields[0]] = true
		}
	}
	return u, nil
}

func (u uses) of(s sysfs, name string) []string {
	var list []string
	node := "/dev/" + name
	if at := append(u.mounts[s.text("dev")], u.mounts[node]...); len(at) > 0 {
		list = append(list, fmt.Sprintf("%s is mounted at %s", name, at[0]))
	}
	if u.swaps[node] {
		list = append(list, name+" is swapped to")
	}
	holders, _ := fs.ReadDir(s.root, path.Join(s.dir, "holders"))
	for _, h := range holders {
		list = append(list, fmt.Sprintf("%s is built on %s", h.Name(), name))
	}
	return list
}
