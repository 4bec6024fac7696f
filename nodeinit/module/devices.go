package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Devices loads the driver of each device of the machine, first of those that
// are there, then of those that appear. It is a supervise.Service, ready when
// all that were there have their drivers.
type Devices struct {
	Loader *Loader
	Log    *slog.Logger
	Sys    string // where sysfs is: /sys
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

	aliases, err := present(filepath.Join(d.Sys, "devices"))
	if err != nil {
		return err
	}
	d.load(ctx, aliases)
	ready()

	message := make([]byte, 64<<10)
	for {
		n, err := events.Read(message)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // events were lost: look again
			if aliases, err = present(filepath.Join(d.Sys, "devices")); err != nil {
				return err
			}
			d.load(ctx, aliases)
		case err != nil:
			return fmt.Errorf("read device events: %w", err)
		default:
			if alias := added(message[:n]); alias != "" {
				d.load(ctx, []string{alias})
			}
		}
	}
}

// load loads what the aliases ask for. A driver that does not like its device
// is no error of ours; it is said and left.
func (d *Devices) load(ctx context.Context, aliases []string) {
	names := d.Loader.ForDevices(aliases)
	if len(names) == 0 {
		return
	}
	if err := d.Loader.Load(ctx, names...); err != nil {
		d.Log.Warn("some drivers did not load", "err", err)
	}
	d.Log.Info("loaded drivers", "modules", strings.Join(names, ","))
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

// present returns the aliases of all devices below dir, each once.
func present(dir string) (aliases []string, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // a device that went away meanwhile
		}
		if entry.IsDir() || entry.Name() != "modalias" {
			return nil
		}
		if text, err := os.ReadFile(path); err == nil {
			aliases = append(aliases, strings.TrimSpace(string(text)))
		}
		return nil
	})
	slices.Sort(aliases)
	return slices.Compact(aliases), err
}
