package early

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/mount/loop"
	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
)

// EnterRoot goes from the initramfs to the root image, inside it or in a slot on
// a disk, and runs this program again there, as PID 1. What else this program
// does ends with leave, which is called just before. It returns only with an error.
//
// The initramfs stays where it is, unseen, because this program is in it, and
// maybe the root image; its modules are removed.
func EnterRoot(log *slog.Logger, leave func()) error {
	if err := loadOrdered("/modules"); err != nil {
		return err
	}
	if err := os.RemoveAll("/modules"); err != nil {
		return fmt.Errorf("free the initramfs: %w", err)
	}
	if err := withDrivers(log, func() error { return mountRoot(log) }); err != nil {
		return err
	}
	if err := apply(log, toNewRoot); err != nil {
		return err
	}
	// pivot_root(2) cannot be done from the initramfs; this is switch_root(8).
	if err := os.Chdir(newRoot); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if cmdline, err := os.ReadFile("/proc/cmdline"); err == nil {
		if err := setSlack(string(cmdline)); err != nil {
			log.Warn("timers are as the kernel has them", "err", err)
		}
	}
	leave()
	return fmt.Errorf("run %s: %w", Self, unix.Exec(Self, []string{Self}, os.Environ()))
}

// mountRoot mounts the root image that the kernel's command line names.
func mountRoot(log *slog.Logger) error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read the kernel command line: %w", err)
	}
	want, err := wantedRoot(string(cmdline))
	if err != nil {
		return err
	}
	if want == nil {
		return mountImage(rootImage, newRoot)
	}
	if want.slot == "" {
		want.slot, want.boot = loaderSays()
	}
	return mountSlot(log, want)
}

// mountSlot mounts the slot that holds the image, checked block by block.
func mountSlot(log *slog.Logger, want *rootWanted) error {
	slot, salt, err := awaitSlot(log, "/sys", want)
	if err != nil {
		return err
	}
	device, err := openVerity(slot, want, salt)
	if err != nil {
		return fmt.Errorf("check %s on %s by its root hash: %w", slot.label, slot.name, err)
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, newRoot, "squashfs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount the root image of %s on %s: %w", slot.label, slot.name, err)
	}
	return nil
}

// loaderSays is which slot a UEFI loader says that it started, and the GUID of the
// partition that it came from. Without an answer the slot that holds the image is
// found all the same, as long as one disk has it.
func loaderSays() (slot disklayout.Slot, boot string) {
	const dir = "/run/efivars"
	variables := mount{"efivarfs", dir, hardened | unix.MS_NOEXEC | unix.MS_RDONLY, ""}
	if variables.do() != nil {
		return "", ""
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	entry, _ := os.ReadFile(filepath.Join(dir, loaderEntry))
	from, _ := os.ReadFile(filepath.Join(dir, loaderPartition))
	return entrySlot(loaderText(entry)), loaderText(from)
}

// Console mounts what the kernel offers and makes /dev/console the standard
// input and output: the kernel starts PID 1 of an initramfs without any.
// It is the first thing to call in the initramfs.
func Console(log *slog.Logger) error {
	if err := apply(log, kernelMounts); err != nil {
		return err
	}
	console, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open console: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(console, fd, 0); err != nil && console != fd {
			return fmt.Errorf("make the console file %d: %w", fd, err)
		}
	}
	return nil
}

// loadOrdered loads the modules that the file "order" in dir lists, one file
// name a line, dependencies first. They are not compressed. Without the file
// there is nothing to load.
func loadOrdered(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the list of modules: %w", err)
	}
	for name := range strings.FieldsSeq(string(order)) {
		if err := loadFile(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

func loadFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	err = unix.FinitModule(int(file.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// mountImage mounts a squashfs file through a loop device (loop(4)), read-only.
func mountImage(image, target string) error {
	device, err := loop.New(image, "squashfs", "")
	if err != nil {
		return fmt.Errorf("attach %s to a loop device: %w", image, err)
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if _, err := device.Mount(target, unix.MS_RDONLY|unix.MS_NODEV); err != nil {
		return fmt.Errorf("mount root image %s: %w", image, err)
	}
	return nil
}
