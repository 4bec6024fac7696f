package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Devices loads the driver of each device of the machine, first of those that
// are there, then of those that appear. It is a supervise.Service, ready when
// the network cards and disks that were there have theirs.
type Devices struct {
	Loader *Loader
	Log    *slog.Logger
	Sys    string // where sysfs is: /sys
	All    bool   // ready only when the drivers of all devices that are there are loaded, not of the urgent ones
}

// Run listens before it looks, so that no device falls between the two: a
// driver that is loaded brings further devices.
func (d *Devices) Run(ctx context.Context, ready func()) error {
	events, err := listen()
	if err != nil {
		return err
	}
	defer events.Close()
	defer context.AfterFunc(ctx, func() { events.Close() })()
	if err := d.loadPresent(ctx, ready); err != nil {
		return err
	}
	message := make([]byte, 64<<10)
	for {
		n, err := events.Read(message)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // events were lost: look again
			if err := d.loadPresent(ctx, func() {}); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("read device events: %w", err)
		default:
			if alias := added(message[:n]); alias != "" {
				d.load(ctx, []string{alias})
			}
		}
	}
}

func (d *Devices) loadPresent(ctx context.Context, ready func()) error {
	aliases, err := present(d.Sys)
	if err != nil {
		return err
	}
	groups := byUrgency(aliases)
	d.load(ctx, groups[0])
	d.load(ctx, groups[1])
	if !d.All {
		ready()
	}
	d.load(ctx, groups[2])
	if d.All {
		ready()
	}
	return nil
}

// load loads what the aliases ask for, which may be nothing: most drivers are
// built in or not needed. A driver that does not like its device is no error
// of ours; it is said and left.
func (d *Devices) load(ctx context.Context, aliases []string) {
	names := d.Loader.aliases.Match(slices.DeleteFunc(aliases, ignored)...)
	if len(names) == 0 {
		return
	}
	if err := d.Loader.Load(ctx, names...); err != nil {
		d.Log.Warn("some drivers did not load", "err", err)
	}
	d.Log.Info("loaded drivers", "modules", strings.Join(names, ","))
}

// ignored is true for what asks for modules that a node does without: per
// processor feature, dozens of accelerated ciphers that the kernel asks for by
// name when something uses them; per mainboard, buttons and fans of laptops.
func ignored(alias string) bool {
	return strings.HasPrefix(alias, "cpu:") || strings.HasPrefix(alias, "dmi:")
}

// byUrgency splits aliases into those of network cards, of storage, and of the
// rest. A machine has much to do over the network while the rest loads.
func byUrgency(aliases []string) (groups [3][]string) {
	for _, alias := range aliases {
		switch {
		case strings.HasPrefix(alias, "virtio:d00000001"), strings.HasPrefix(alias, "pci:") && strings.Contains(alias, "bc02"):
			groups[0] = append(groups[0], alias)
		case strings.HasPrefix(alias, "virtio:"), strings.HasPrefix(alias, "pci:") && strings.Contains(alias, "bc01"):
			groups[1] = append(groups[1], alias)
		default:
			groups[2] = append(groups[2], alias)
		}
	}
	return groups
}

// listen opens the kernel's device events (netlink(7), NETLINK_KOBJECT_UEVENT).
func listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open device events: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) // or what there is: ENOBUFS is handled
	const fromKernel = 1
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: fromKernel}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to device events: %w", err)
	}
	return os.NewFile(uintptr(fd), "device events"), nil
}

// added returns the alias of a device that a message says was added, or "".
// A message is "add@/devices/…" and KEY=value strings, each ended by a zero.
func added(message []byte) string {
	isAdd, alias := false, ""
	for field := range bytes.SplitSeq(message, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "ACTION":
			isAdd = value == "add"
		case "MODALIAS":
			alias = value
		}
	}
	if !isAdd {
		return ""
	}
	return alias
}

// present returns the aliases of all devices, each once. Those that ask for a
// driver are on a bus; going through the buses is a tenth of going through all
// of sysfs.
func present(sys string) (aliases []string, err error) {
	paths, err := filepath.Glob(filepath.Join(sys, "bus/*/devices/*/modalias"))
	if err != nil {
		return nil, fmt.Errorf("find devices: %w", err)
	}
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil { // else it went away meanwhile
			aliases = append(aliases, strings.TrimSpace(string(text)))
		}
	}
	slices.Sort(aliases)
	return slices.Compact(aliases), nil
}
