package agent

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// commandLine is the kernel's, completed: where the boot service did not write
// slipway.machine, because the machine did not boot from the network, it is found
// here. A disk image or a CD is the same for all machines.
func commandLine(ctx context.Context, c *console, s store) (string, error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil || !anonymous(string(text)) {
		return string(text), err
	}
	id := keptMachine(s)
	if id == "" {
		defer c.wait("", "")
		cards := func() []string { return cardAddresses(os.DirFS("/")) }
		id, err = ownMachine(ctx, cards, func() {
			c.wait("the machine's network cards", "looks again; without one it cannot enrol")
		})
	}
	return strings.TrimSpace(string(text)) + " " + machineArgument + id, err
}

const machineArgument = "slipway.machine="

// anonymous says of a command line that it names a boot service and no machine.
func anonymous(cmdline string) bool {
	has := func(key string) bool {
		return slices.ContainsFunc(strings.Fields(cmdline), func(word string) bool { return strings.HasPrefix(word, key) })
	}
	return has("slipway.server=") && !has(machineArgument)
}

// keptMachine is what the machine called itself before: a card that was added
// since does not make it another one.
func keptMachine(s store) string {
	kept, err := s.load(argsFile)
	if err != nil {
		return ""
	}
	for word := range strings.FieldsSeq(string(kept)) {
		if id, ok := strings.CutPrefix(word, machineArgument); ok {
			return id
		}
	}
	return ""
}

// How the network cards are looked for: drivers load one after the other, so
// they count once there was no new one for a while.
const (
	cardLook   = time.Second / 2
	cardSettle = 5 * time.Second
)

// ownMachine names a machine by the lowest address of its Ethernet cards, which
// does not depend on the order in which drivers load; who wants another card
// writes slipway.machine. It waits for a card, and tells so each time it looks.
func ownMachine(ctx context.Context, cards func() []string, waiting func()) (string, error) {
	look := time.NewTicker(cardLook)
	defer look.Stop()
	var last []string
	for since := time.Now(); ; {
		if now := cards(); !slices.Equal(now, last) {
			last, since = now, time.Now()
		}
		if len(last) > 0 && time.Since(since) >= cardSettle {
			return strings.ReplaceAll(last[0], ":", "-"), nil
		}
		waiting()
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-look.C:
		}
	}
}

// cardAddresses are those of the cards that sysfs shows, sorted: a device is behind
// them, which bridges and bonds have not.
func cardAddresses(root fs.FS) []string {
	const ethernet = "1" // ARPHRD_ETHER
	var list []string
	devices, _ := fs.Glob(root, "sys/class/net/*/device")
	for _, device := range devices {
		kind, _ := fs.ReadFile(root, path.Join(path.Dir(device), "type"))
		text, _ := fs.ReadFile(root, path.Join(path.Dir(device), "address"))
		mac, err := net.ParseMAC(strings.TrimSpace(string(text)))
		if err == nil && len(mac) == 6 && strings.TrimSpace(string(kind)) == ethernet && mac.String() != "00:00:00:00:00:00" {
			list = append(list, mac.String())
		}
	}
	slices.Sort(list)
	return list
}
