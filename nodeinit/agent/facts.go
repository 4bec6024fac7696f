package agent

import (
	"io/fs"
	"path"
	"runtime"
	"strconv"
	"strings"

	"slipway/configs/enroll"
	"slipway/nodeinit/disk"
)

// Facts reads what the kernel tells of the hardware. The file system is the
// machine's root, with sys and proc mounted. What cannot be read is left out:
// many machines have no serial number, and none may fail to boot for it.
func Facts(root fs.FS) enroll.Facts {
	f := enroll.Facts{
		UUID:     strings.ToLower(text(root, "sys/class/dmi/id/product_uuid")),
		Vendor:   text(root, "sys/class/dmi/id/sys_vendor"),
		Product:  text(root, "sys/class/dmi/id/product_name"),
		Serial:   text(root, "sys/class/dmi/id/product_serial"),
		Arch:     runtime.GOARCH,
		Firmware: "bios",
		CPUs:     strings.Count("\n"+text(root, "proc/cpuinfo"), "\nprocessor"),
		Memory:   memory(text(root, "proc/meminfo")),
		NICs:     nics(root),
		Disks:    disks(root),
	}
	if _, err := fs.Stat(root, "sys/firmware/efi"); err == nil {
		f.Firmware = "uefi"
	}
	return f
}

// memory is MemTotal, in bytes.
func memory(meminfo string) uint64 {
	for line := range strings.Lines(meminfo) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
			return number(fields[1]) * 1024
		}
	}
	return 0
}

func nics(root fs.FS) []enroll.NIC {
	var list []enroll.NIC
	for _, name := range devices(root, "sys/class/net") {
		dir := path.Join("sys/class/net", name)
		list = append(list, enroll.NIC{
			Name: name, MAC: text(root, path.Join(dir, "address")),
			Driver: driver(text(root, path.Join(dir, "device/uevent"))),
			Up:     text(root, path.Join(dir, "carrier")) == "1",
		})
	}
	return list
}

func driver(uevent string) string {
	for line := range strings.Lines(uevent) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DRIVER="); ok {
			return name
		}
	}
	return ""
}

// disks are those that package disk could choose from. Without a list the
// machine still boots.
func disks(root fs.FS) (list []enroll.Disk) {
	all, err := disk.Inventory(root)
	if err != nil {
		return nil
	}
	for _, d := range all {
		list = append(list, enroll.Disk{
			Name: d.Name, Size: uint64(d.Size), Model: d.Model, Serial: d.Serial, WWN: d.WWN,
			Type: string(d.Type), Removable: d.Removable, Rotational: text(root, path.Join("sys/block", d.Name, "queue/rotational")) == "1",
		})
	}
	return list
}

// devices lists the entries of a class that have hardware behind them.
func devices(root fs.FS, class string) []string {
	entries, _ := fs.ReadDir(root, class)
	var names []string
	for _, e := range entries {
		if _, err := fs.Stat(root, path.Join(class, e.Name(), "device")); err == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// text is a file's content without white space around it, empty if there is none.
func text(root fs.FS, name string) string {
	data, _ := fs.ReadFile(root, name)
	return strings.TrimSpace(string(data))
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
