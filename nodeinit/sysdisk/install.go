package sysdisk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/install"
	"slipway/nodeinit/slot"
)

// WipeError says that a person must agree to what is wiped.
type WipeError struct{ Manifest disk.Manifest }

func (e *WipeError) Error() string { return disk.ErrNotAgreed.Error() }

// Unwrap is disk.ErrNotAgreed.
func (e *WipeError) Unwrap() error { return disk.ErrNotAgreed }

// target is the disk that a machine is being installed to.
type target struct {
	*Disk
	disk  disk.Disk
	owner disk.Owner
	want  machine.Install
	dir   string // where its state partition is mounted
}

// Install makes the disk that the config asks for the one that the machine
// boots from, with files as the agent's in its state partition. It returns a
// *WipeError, and has written nothing, if a person must agree first. What was
// done before a power cut is not done again, for the same image and files.
func (d *Disk) Install(ctx context.Context, config *machine.Config, files map[string][]byte, tell Tell) (State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.choose(ctx, config)
	if err != nil {
		return State{}, err
	}
	tell("look at the image", 0, 0)
	image, err := install.FetchImage(ctx, d.Source, config.Install.Image.SHA256)
	if err != nil {
		return State{}, err
	}
	if err := image.Check(runtime.GOARCH, d.build(), true, artifacts()); err != nil {
		return State{}, err
	}
	defer t.leave()
	operation := t.operation(image, files, tell)
	if err := t.resume(operation.About.Key); err != nil {
		return State{}, err
	}
	if err := operation.Run(ctx); err != nil {
		return State{}, err
	}
	return State{
		Path: t.disk.Path, Serial: t.disk.Serial, Good: disklayout.SlotA,
		Slots: []Image{imageIn(disklayout.SlotA, image)},
	}, nil
}

// artifacts are the boot files that this machine's loader needs.
func artifacts() []string {
	if isUEFI() {
		return slot.SystemdBoot{}.Artifacts()
	}
	return slot.GRUB{}.Artifacts()
}

// choose picks the disk and looks at what is on it.
func (d *Disk) choose(ctx context.Context, config *machine.Config) (*target, error) {
	list, err := disk.Inventory(os.DirFS("/"))
	if err != nil {
		return nil, err
	}
	chosen, err := disk.Choose(rule(config.Install.Disk), list)
	if err != nil {
		return nil, err
	}
	t := &target{
		Disk: d, disk: chosen, want: config.Install, dir: targetDir,
		owner: disk.Owner{Machine: d.Machine, Cluster: config.Cluster.Name},
	}
	manifest, err := d.tools.Survey(ctx, t.owner, chosen)
	if err != nil {
		return nil, err
	}
	if err := disk.Agreed(manifest, config.Install.Wipe); errors.Is(err, disk.ErrNotAgreed) {
		return nil, &WipeError{manifest}
	} else if err != nil {
		return nil, err
	}
	return t, t.own(manifest)
}

// rule is a config's rule as package disk has it.
func rule(d machine.Disk) disk.Rule {
	if d.Rule == nil {
		return disk.Rule{}
	}
	r := *d.Rule
	return disk.Rule{
		Path: r.Path, Serial: r.Serial, WWN: r.WWN, Model: r.Model, Type: disk.Type(r.Type),
		MinSize: int64(r.MinSize), MaxSize: int64(r.MaxSize),
	}
}

// operation is the installation. Its key names the files too: a machine that
// came back with another identity does not go on with what it wrote of the old one.
func (t *target) operation(image *install.Image, files map[string][]byte, tell Tell) install.Operation {
	step := ""
	operation := install.Install{
		System: install.System{
			Source: t.Source, Image: image, Architecture: runtime.GOARCH, Loader: t.loader,
			Open:  func(n disklayout.Slot) (install.Device, error) { return t.open(n.Label()) },
			Wrote: func(done, total int64) { tell(step, done, total) },
		},
		Disk: t, Journal: install.File(filepath.Join(t.dir, install.JournalName)), Now: time.Now,
		State: func(context.Context) error {
			return t.keep(files, imageIn(disklayout.SlotA, image))
		},
		Told: func(name string) { step = name; tell(name, 0, 0) },
	}.Operation()
	operation.About.Key += " " + digest(files)
	return operation
}

func digest(files map[string][]byte) string {
	h := sha256.New()
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		sum := sha256.Sum256(files[name])
		fmt.Fprintf(h, "%s %x\n", name, sum)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// keep writes the machine's state, all at once as far as the machine can tell:
// it does not boot from here before that.
func (t *target) keep(files map[string][]byte, image Image) error {
	for name, data := range files {
		if err := WriteFile(filepath.Join(t.dir, MachineDir), name, data); err != nil {
			return err
		}
	}
	return keepImages(t.dir, image)
}

// resume mounts the state partition of an installation that was cut short, so
// that its journal is found; that of another one is let go.
func (t *target) resume(key string) error {
	if err := t.mount(); err != nil {
		return nil // there is none, or it is not whole: begin at the beginning
	}
	record, err := install.File(filepath.Join(t.dir, install.JournalName)).Load()
	if err == nil && record.Operation == "install" && record.Key == key && record.Outcome == "" {
		return nil
	}
	return t.unmount()
}

// now is the disk with its partitions as they are.
func (t *target) now() (disk.Disk, error) {
	list, err := disk.Inventory(os.DirFS("/"))
	if err != nil {
		return disk.Disk{}, err
	}
	for _, d := range list {
		if d.Name == t.disk.Name && d.Serial == t.disk.Serial && d.Size == t.disk.Size {
			return d, nil
		}
	}
	return disk.Disk{}, fmt.Errorf("%s is gone", t.disk)
}

func (t *target) part(label string) (disk.Partition, error) {
	d, err := t.now()
	if err != nil {
		return disk.Partition{}, err
	}
	p, ok := d.Partition(label)
	if !ok {
		return p, fmt.Errorf("%s has no partition %s", d.Path, label)
	}
	return p, nil
}

func (t *target) open(label string) (install.Device, error) {
	d, err := t.now()
	if err != nil {
		return nil, err
	}
	return openLabel(d, label)
}

func openLabel(d disk.Disk, label string) (install.Device, error) {
	p, ok := d.Partition(label)
	if !ok {
		return nil, fmt.Errorf("%s has no partition %s", d.Path, label)
	}
	return install.OpenPartition(p.Path)
}

// loader opens the target's boot partition, once it has a file system.
func (t *target) loader() (slot.Loader, error) {
	if t.boot == nil {
		d, err := t.now()
		if err != nil {
			return nil, err
		}
		if t.boot, err = openBoot(d, os.O_RDWR); err != nil {
			return nil, err
		}
	}
	return t.boot.loader(), nil
}

// Partition implements install.Disk.
func (t *target) Partition(ctx context.Context) error {
	plan, err := disklayout.Plan(t.disk.Size, int64(t.want.DataSize))
	if err != nil {
		return err
	}
	if err := t.Unboot(ctx); err != nil {
		return err
	}
	held, err := t.tools.Take(ctx, t.disk, t.owner, t.want.Wipe)
	if err != nil {
		return err
	}
	_, err = held.Partition(ctx, plan)
	return errors.Join(err, held.Close(), t.Unboot(ctx))
}

// Unboot implements install.Disk, if the disk is one of Slipway's: on another,
// nothing is written before it is taken.
func (t *target) Unboot(context.Context) error {
	d, err := t.now()
	if err != nil {
		return err
	}
	if _, ok := d.Partition(disklayout.StateLabel); !ok {
		return nil
	}
	file, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(unbootDisk(d, file), file.Close())
}

// Filesystems implements install.Disk. It is done once in an installation; the
// file systems of an older one of this machine are made anew, for what is in
// them belongs to a member and a Node that are no more.
func (t *target) Filesystems(ctx context.Context) error {
	for _, label := range []string{disklayout.StateLabel, disklayout.DataLabel} {
		p, err := t.part(label)
		if err != nil {
			return err
		}
		if err := t.tools.MakeExt4(ctx, p, t.owner); err != nil {
			return err
		}
	}
	return t.mount()
}

// Boot implements install.Disk.
func (t *target) Boot(context.Context) error {
	p, err := t.part(disklayout.BootLabel)
	if err != nil {
		return err
	}
	return disk.MakeFAT(p)
}

func (t *target) mount() error {
	p, err := t.part(disklayout.StateLabel)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	if out, err := exec.Command("e2fsck", "-p", p.Path).CombinedOutput(); err != nil && exitCode(err)&^3 != 0 {
		return fmt.Errorf("check %s: %w: %s", p.Path, err, strings.TrimSpace(string(out)))
	}
	if err := unix.Mount(p.Path, t.dir, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		os.Remove(t.dir) // a journal would find a folder that is not the partition
		return fmt.Errorf("mount %s: %w", p.Path, err)
	}
	return nil
}

// completing is how long Complete may take; a large disk is discarded as a whole
// before it gets its file system.
const completing = 30 * time.Minute

// Complete makes the state and data partitions of a disk that has none: it was
// written from an image, which has only what every machine has. It may be repeated.
func Complete(name string) error {
	d, err := (&Disk{Name: name}).find()
	if err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	size, err := dataSize(string(cmdline))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), completing)
	defer cancel()
	// PID 1 calls this, which has no PATH.
	_, err = disk.Tools{Wipefs: "/sbin/wipefs", Mke2fs: "/sbin/mke2fs"}.Complete(ctx, d, size)
	return err
}

// dataSize is how many bytes of a disk are for data, by the kernel's command line;
// 0: all that are left.
func dataSize(cmdline string) (int64, error) {
	var size machine.Size
	for _, word := range strings.Fields(cmdline) {
		if value, ok := strings.CutPrefix(word, disklayout.DataSizeArgument+"="); ok {
			if err := size.UnmarshalText([]byte(value)); err != nil {
				return 0, fmt.Errorf("kernel argument %s: %w", word, err)
			}
		}
	}
	return int64(size), nil
}

// exitCode is a program's; -1 if it did not run to its end.
func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

func (t *target) unmount() error {
	if err := unix.Unmount(t.dir, 0); err != nil {
		return fmt.Errorf("unmount the state partition: %w", err)
	}
	return os.Remove(t.dir)
}

// leave closes what an installation has open.
func (t *target) leave() {
	if t.boot != nil {
		t.boot.close()
		t.boot = nil
	}
	if _, err := os.Stat(t.dir); err == nil {
		_ = t.unmount()
	}
}

// Adopt makes the disk that the machine booted from that of its cluster, where
// it is not yet: one that was written from an image is nobody's before. A data
// partition of another size than the config has is an error, and stays.
func (d *Disk) Adopt(cluster string, data machine.Size) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, err := d.find()
	if err != nil {
		return err
	}
	if err := disk.Adopt(dev, disk.Owner{Machine: d.Machine, Cluster: cluster}, StateDir); err != nil {
		return err
	}
	list, err := disk.Listed(dev)
	if err != nil {
		return err
	}
	return checkData(disk.Disk{Partitions: list}, data)
}

// checkData compares the data partition with what the config asks for. Nothing
// makes it smaller or larger: the machine's data is in it.
func checkData(d disk.Disk, want machine.Size) error {
	p, ok := d.Partition(disklayout.DataLabel)
	if !ok || want == 0 || p.Size == int64(want)/disklayout.MiB*disklayout.MiB {
		return nil
	}
	return fmt.Errorf("the data partition has %s, its config wants %s: it stays as it was made", machine.Size(p.Size), want)
}
