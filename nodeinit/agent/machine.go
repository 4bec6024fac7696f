package agent

import (
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"
)

// commandLine is the kernel's, completed.
func commandLine() ([]byte, error) {
	text, err := os.ReadFile("/proc/cmdline")
	return []byte(ownMachine(string(text), os.DirFS("/"))), err
}

// ownMachine completes the command line of a machine that did not boot from the
// network, where the boot service writes slipway.machine: a disk image or a CD
// is the same for all. The machine's name is then the lowest address of its own
// Ethernet cards, which does not depend on the order in which drivers load; who
// wants another card writes slipway.machine. A command line that names a machine,
// or no boot service, stays as it is.
func ownMachine(cmdline string, root fs.FS) string {
	has := func(key string) bool {
		return slices.ContainsFunc(strings.Fields(cmdline), func(word string) bool { return strings.HasPrefix(word, key+"=") })
	}
	if has("slipway.machine") || !has("slipway.server") {
		return cmdline
	}
	address, ok := lowestAddress(root)
	if !ok {
		return cmdline
	}
	return strings.TrimSpace(cmdline) + " slipway.machine=" + strings.ReplaceAll(address, ":", "-")
}

// lowestAddress looks at the cards that sysfs shows: a device is behind them,
// which bridges and bonds have not.
func lowestAddress(root fs.FS) (lowest string, ok bool) {
	const ethernet = "1" // ARPHRD_ETHER
	devices, _ := fs.Glob(root, "sys/class/net/*/device")
	for _, device := range devices {
		kind, _ := fs.ReadFile(root, path.Join(path.Dir(device), "type"))
		text, _ := fs.ReadFile(root, path.Join(path.Dir(device), "address"))
		mac, err := net.ParseMAC(strings.TrimSpace(string(text)))
		if err != nil || len(mac) != 6 || strings.TrimSpace(string(kind)) != ethernet || mac.String() == "00:00:00:00:00:00" {
			continue
		}
		if !ok || mac.String() < lowest {
			lowest, ok = mac.String(), true
		}
	}
	return lowest, ok
}
