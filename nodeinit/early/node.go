package early

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Prepare makes the root ready for units: mounts, /etc, settings, limits,
// control groups, the machine's identity. It tries all and joins the errors;
// none of them must keep PID 1 from going on. It says what the machine booted from.
func Prepare(log *slog.Logger, disk DiskSteps) (Booted, error) {
	unix.Umask(0o022)
	root, err := rootNumber()
	booted := bootedFrom("/sys", root)
	return booted, errors.Join(
		err,
		apply(log, nodeMounts),
		booted.onDisk(log, disk),
		apply(log, varMounts(booted)),
		booted.tell(),
		apply(log, settings),
		setLimits(),
		delegateCgroups(log, cgroups),
		writeMachineID("/sys/class/dmi/id/product_uuid", "/etc/machine-id"),
		SetHostname("slipway"),
	)
}

// DiskSteps are the caller's part in what is done to the disk that a machine
// booted from. None is called where it runs from RAM.
type DiskSteps struct {
	// Complete is called before a file system is mounted: a disk that was written
	// from an image has none yet.
	Complete func(Booted) error
	// Mounted is called once the state partition is mounted, before the data partition is.
	Mounted func(Booted)
}

// varMounts are what the node writes to: memory, or its disk.
func varMounts(booted Booted) []action {
	if booted.Slot == "" {
		return slices.Concat(memoryVar, varFolders)
	}
	return slices.Concat(diskVar(booted.Disk), varFolders)
}

// BridgeSettings is to be called once br_netfilter is loaded.
func BridgeSettings(log *slog.Logger) error { return apply(log, bridgeSettings) }

// SetHostname sets the kernel's host name.
func SetHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name %s: %w", name, err)
	}
	return nil
}

// setLimits sets what units inherit. etcd, containerd and the API server hold
// thousands of files; nothing on a node writes core files.
func setLimits() error {
	var errs []error
	for _, limit := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"open files", unix.RLIMIT_NOFILE, 1 << 20},
		{"locked memory", unix.RLIMIT_MEMLOCK, unix.RLIM_INFINITY},
		{"core file", unix.RLIMIT_CORE, 0},
	} {
		err := unix.Setrlimit(limit.resource, &unix.Rlimit{Cur: limit.value, Max: limit.value})
		if err != nil {
			errs = append(errs, fmt.Errorf("set limit of %s: %w", limit.name, err))
		}
	}
	return errors.Join(errs...)
}

// wantedControllers are those that units and pods are accounted and limited by.
var wantedControllers = []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"}

// delegateCgroups lets cgroups below root have controllers. PID 1 itself moves
// into a leaf: a cgroup that controls its children holds no processes
// (kernel: admin-guide/cgroup-v2, no internal process constraint).
func delegateCgroups(log *slog.Logger, root string) error {
	leaf, units := filepath.Join(root, "init"), filepath.Join(root, filepath.Base(UnitCgroup))
	if err := apply(log, []action{dir{leaf, 0o755}, dir{units, 0o755}, set{leaf + "/cgroup.procs", "1"}}); err != nil {
		return err
	}
	have, err := os.ReadFile(root + "/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("list controllers: %w", err)
	}
	enable := enabling(strings.Fields(string(have)))
	return apply(log, []action{
		set{root + "/cgroup.subtree_control", enable},
		set{units + "/cgroup.subtree_control", enable},
	})
}

// enabling is what to write to cgroup.subtree_control.
func enabling(have []string) string {
	var enable []string
	for _, name := range wantedControllers {
		if slices.Contains(have, name) {
			enable = append(enable, "+"+name)
		}
	}
	return strings.Join(enable, " ")
}

// writeMachineID writes an ID (machine-id(5)) that a machine keeps from boot to
// boot, derived from what its mainboard says it is; if that says nothing, a
// random one.
func writeMachineID(boardFile, path string) error {
	var id [16]byte
	board, err := os.ReadFile(boardFile)
	if uuid := strings.ToLower(strings.TrimSpace(string(board))); err == nil && identifies(uuid) {
		sum := sha256.Sum256([]byte("slipway machine-id " + uuid))
		copy(id[:], sum[:])
	} else {
		rand.Read(id[:])
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // in the form of a version 4 UUID
	if err := os.WriteFile(path, []byte(hex.EncodeToString(id[:])+"\n"), 0o444); err != nil {
		return fmt.Errorf("write machine ID: %w", err)
	}
	return nil
}

// identifies rejects what careless vendors put where a UUID belongs.
func identifies(uuid string) bool {
	digits := strings.ReplaceAll(uuid, "-", "")
	return len(digits) == 32 && strings.Count(digits, digits[:1]) < 32 &&
		digits != "03000200040005000006000700080009"
}
