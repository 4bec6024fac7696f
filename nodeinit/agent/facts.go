package agent

import (
	"context"
	"io/fs"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"slipway/configs/enroll"
	"slipway/nodeinit/disk"
)

// lookAtFacts is how often the agent looks at the machine's hardware. What it
// reads is in memory, but for the serial number of a virtio disk.
const lookAtFacts = 5 * time.Second

// watchFacts has the reporter know the hardware as it is, until ctx ends: most
// drivers are loaded when the machine has enrolled already, and disks are added
// and swapped while it runs. It waits for disks that do not answer, and so is
// apart from the reports.
func watchFacts(ctx context.Context, root fs.FS, reports *reporter) error {
	tick := time.NewTicker(lookAtFacts)
	defer tick.Stop()
	for {
		reports.hardware(factsMessage(Facts(root)))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

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
		NICs:     atMost(enroll.MaxNICs, nics(root)),
		Disks:    atMost(enroll.MaxDisks, disks(root)),
	}
	if _, err := fs.Stat(root, "sys/firmware/efi"); err == nil {
		f.Firmware = "uefi"
	}
	return f
}

// atMost is the first n of a list: the boot service takes no more.
func atMost[T any](n int, list []T) []T { return list[:min(len(list), n)] }

// memory is MemTotal, in bytes.
func memory(meminfo string) uint64 {
	for line := range strings.Lines(meminfo) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
			return number(fields[1]) * 1024
		}
	}
	return 0
}

// nics are the network cards. Virtual functions of a card (SR-IOV) have a device
// too, but come and go with whatever uses them: they are no hardware of their own.
func nics(root fs.FS) []enroll.NIC {
	var list []enroll.NIC
	for _, name := range devices(root, "sys/class/net") {
		dir := path.Join("sys/class/net", name)
		if _, err := fs.Stat(root, path.Join(dir, "device/physfn")); err == nil {
			continue
		}
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
			Name: d.Name, Size: uint64(d.Size), Model: valid(d.Model), Serial: valid(d.Serial), WWN: valid(d.WWN),
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
	return valid(strings.TrimSpace(string(data)))
}

// valid is a device's text as UTF-8: nothing else can be told, and no report may
// fail for a vendor's garbage.
func valid(text string) string { return strings.ToValidUTF8(text, "?") }

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
