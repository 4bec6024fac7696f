package early

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
)

// Booted is the slot that a machine booted from; the zero value: it runs from RAM.
type Booted struct {
	Slot disklayout.Slot
	Disk string // the kernel's name of the disk: vda
}

// Where units find what the machine booted from. None of the files is there when
// it runs from RAM.
const (
	SlotFile = "/run/slipway/slot" // a or b
	DiskFile = "/run/slipway/disk" // the kernel's name of the disk
	HungFile = "/run/slipway/hung" // empty; only there if the hardware watchdog says that this start is its doing
)

// machineLink leads to the folder that the node agent keeps, with the machine's
// certificate and key. Programs that read them need not know where it is.
const machineLink = "/run/slipway/machine"

// bootedFrom asks the kernel what is below the root: a root that dm-verity
// checks has one partition below it, in sysfs.
func bootedFrom(sys string, root uint64) Booted {
	pattern := fmt.Sprintf("dev/block/%d:%d/slaves/*", unix.Major(root), unix.Minor(root))
	below, _ := filepath.Glob(filepath.Join(sys, pattern))
	for _, p := range partitions(sys) {
		if len(below) == 1 && p.name == filepath.Base(below[0]) {
			return Booted{slotOf(p.label), p.disk}
		}
	}
	return Booted{}
}

// rootNumber is the number of the device that the root is on.
func rootNumber() (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Stat("/", &stat); err != nil {
		return 0, fmt.Errorf("look at the root: %w", err)
	}
	return stat.Dev, nil
}

// volume mounts a file system of the machine's disk, checked before.
type volume struct {
	disk, label, target string
	flags               uintptr
}

func (v volume) String() string {
	return fmt.Sprintf("mount %s of %s on %s", v.label, v.disk, v.target)
}

func (v volume) do() error {
	device, err := v.device()
	if err != nil {
		return err
	}
	if err := checkVolume(device); err != nil {
		return err
	}
	return unix.Mount(device, v.target, "ext4", v.flags, spareOwner)
}

// spareOwner gives the blocks that a file system keeps (package disk) to a user that
// nobody is. They are root's by default, which most containers are: so only those
// have them who may go past a file system's limits, as the node's own programs may
// (ext4(5), resuid).
const spareOwner = "resuid=4294967294"

// device asks the kernel, and then the disk itself: the kernel has not been told
// the labels of partitions that were made in this boot.
func (v volume) device() (string, error) {
	if p, ok := labelled(partitions("/sys"), v.disk, v.label); ok {
		return p.device, nil
	}
	d, err := diskNamed(v.disk)
	if err != nil {
		return "", err
	}
	d.Partitions, err = disk.Listed(d)
	if err != nil {
		return "", err
	}
	p, ok := d.Partition(v.label)
	if !ok {
		return "", errors.New("the disk has no such partition")
	}
	return p.Path, nil
}

func diskNamed(name string) (disk.Disk, error) {
	list, err := disk.Inventory(os.DirFS("/"))
	if err != nil {
		return disk.Disk{}, err
	}
	for _, d := range list {
		if d.Name == name {
			return d, nil
		}
	}
	return disk.Disk{}, fmt.Errorf("there is no disk %s", name)
}

// checking is how long a check may take. After a power cut it is seconds: only
// the journal is played back. A file system with errors is read as a whole.
const checking = 30 * time.Minute

// checkVolume repairs what can be repaired without a decision. Its exit code
// is a set of bits (e2fsck(8)): 1 and 2 say that something was repaired.
func checkVolume(device string) error {
	ctx, cancel := context.WithTimeout(context.Background(), checking)
	defer cancel()
	output, err := exec.CommandContext(ctx, "/sbin/e2fsck", "-p", device).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode()&^3 == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check it: %w: %s", err, strings.TrimSpace(string(output)))
	}
	return nil
}

// onDisk completes the disk that the machine booted from, and mounts its state.
func (b Booted) onDisk(log *slog.Logger, steps DiskSteps) error {
	if b.Slot == "" {
		return nil
	}
	incomplete := steps.Complete(b)
	err := apply(log, stateMount(b.Disk))
	if err == nil {
		steps.Mounted(b)
	}
	return errors.Join(incomplete, err)
}

// TellHung leaves for others that the hardware watchdog restarted the machine.
func TellHung() error { return os.WriteFile(HungFile, nil, 0o444) }

// tell leaves for others what the machine booted from, and where it keeps what
// it is.
func (b Booted) tell() error {
	if b.Slot == "" {
		return link{machineLink, "/run/slipway/state"}.do()
	}
	return errors.Join(
		link{machineLink, "/state/machine"}.do(),
		os.WriteFile(SlotFile, []byte(b.Slot+"\n"), 0o444),
		os.WriteFile(DiskFile, []byte(b.Disk+"\n"), 0o444),
	)
}
