package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"slipway/configs/disklayout"
	"slipway/qemu"
	"slipway/test/vmtest"
)

// TestInstalledBIOS is the life of a machine that lives on its disk. It is installed once; the
// chapters build on each other.
func TestInstalledBIOS(t *testing.T) { diskStory(t, vmtest.BIOS("m1")) }

// TestInstalledUEFI is the same life with systemd-boot and UKIs.
func TestInstalledUEFI(t *testing.T) {
	needLong(t)
	diskStory(t, vmtest.UEFI("m1"))
}

// diskStory is the same for every firmware. The machine lives on its second disk, the smallest; the
// third is blank.
func diskStory(t *testing.T, machine qemu.Machine) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	machine.DisksGiB, machine.MemoryMiB = []int{9, 8, 9}, 2048
	d := &diskLab{
		Lab: vmtest.New(t, vmtest.Machines(machine), vmtest.Off(), vmtest.Beside()), machine: machine.Name,
		own: machine.Name + ".disk1", other: machine.Name + "-disk0",
	}
	tell := func(name string, story func(*testing.T, *diskLab)) {
		chapter(t, name, func(t *testing.T) { story(t, d) })
	}
	other := noise(t, filepath.Join(d.Dir(), machine.Name+".disk0"))
	tell("foreign data is refused, agreed to, installed over", installs)
	if long(t) {
		tell("reboot", reboots())
		tell("reboot by kexec", reboots("--kexec"))
		tell("a full disk", fillsUp)
		tell("a disk of another machine", keepsToItsDisk)
		tell("a power cut in an upgrade", cutsUpgrade)
	}
	tell("upgrade", upgrades)
	tell("a corrupted program", leavesCorruptedSlot)
	other(t)
	if !long(t) {
		t.Run("reboots, bad images, rollback, reset", needLong)
		return
	}
	tell("an image whose init exits", badImage(badInit("exits"), "wrote nothing to its state partition before it ended: a panic"))
	tell("an image whose kernel panics", badImage(arguments("rdinit=/missing"), "wrote nothing to its state partition before it ended: a panic"))
	tell("an image whose kubelet is never Ready", badImage(noPasswords, "it was not healthy 4m0s after its start: last seen waiting for unit kubelet"))
	tell("an image that hangs", badImage(badInit("hangs"), "the hardware watchdog restarted the machine: the new system hung"))
	tell("rollback", rollsBack)
	tell("a slot that does not come up any more", leavesDeadSlot)
	tell("upgrade by kexec", upgradesBy("slipway.lab=3", "a", "--kexec"))
	tell("reset", resets)
	other(t)
}

// noise begins a disk with something that nobody knows, and returns the check that nothing of
// the disk was written to since.
func noise(t *testing.T, disk string) (untouched func(*testing.T)) {
	t.Helper()
	content := make([]byte, disklayout.MiB)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // never fails
	if err := os.WriteFile(disk, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 9<<30); err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) {
		t.Helper()
		got := make([]byte, disklayout.MiB)
		file, err := os.Open(disk)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := io.ReadFull(file, got); err != nil || !bytes.Equal(got, content) {
			t.Errorf("the other disk was written to: %v", err)
		}
		if at, err := firstByte(file); err != nil || at >= 0 {
			t.Errorf("the other disk was written to at byte %d: %v", disklayout.MiB+at, err)
		}
	}
}

// diskLab is a lab with one machine, which lives on its disk.
type diskLab struct {
	*vmtest.Lab
	machine string
	own     string // file of the disk that it lives on
	other   string // serial number of the disk that it does not
}

// How long is waited for, on the reference computer.
const (
	installPatience = 4 * time.Minute // power-on to the end of an installation
	slotPatience    = 5 * time.Minute // a restart to a slot that is known to be good
)

func (d *diskLab) id(t *testing.T) string { return d.MachineID(t, d.machine) }

// disk is where the machine's disk is on this computer.
func (d *diskLab) disk() string { return filepath.Join(d.Dir(), d.own) }

// installs: a disk with a file system of somebody else is not touched before a person agrees.
func installs(t *testing.T, d *diskLab) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-L", "precious", d.disk(), "8G").CombinedOutput(); err != nil {
		t.Fatalf("make a file system: %v\n%s", err, out)
	}
	d.Switch(t, d.machine, qemu.PowerOn)
	file := filepath.Join(t.TempDir(), "prod.yaml")
	document := fmt.Sprintf("name: prod\ninstall: {disk: any, dataSize: 5GiB}\nmachines:\n- {id: %s, role: control-plane}\n", d.id(t))
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	d.CLI(t, "cluster", "create", "-f", file, "--yes", "--wait=false")
	var manifest string
	d.Await(t, "the machine asks for a person", installPatience, func() error {
		if manifest, err = d.TryCLI("machines", "wipe", d.id(t)); err != nil {
			return err
		}
		if !strings.Contains(manifest, "precious") || !strings.Contains(manifest, "ext4") || strings.Contains(manifest, d.other) {
			return fmt.Errorf("the wipe manifest does not name the file system, or another disk: %s", manifest)
		}
		return nil
	})
	if err := exec.CommandContext(t.Context(), "e2fsck", "-nf", d.disk()).Run(); err != nil {
		t.Errorf("the file system was touched before anybody agreed: %v", err)
	}
	hash := regexp.MustCompile(`\b[0-9a-f]{64}\b`).FindString(manifest)
	d.CLI(t, "machines", "wipe", d.id(t), "--agree", hash)
	d.AwaitConsole(t, d.machine, "install: root image", installPatience)
	d.Switch(t, d.machine, qemu.PowerCycle) // in the midst of it; what was agreed to is not asked again
	createCluster(t, d.Lab)
	awaitNodeReady(t, d.Lab, recoverPatience)
	d.awaitSlot(t, "a", "")
	d.checkRoom(t)
	d.Kubectl(t, "create", "configmap", "kept", "--from-literal=by=disk")
}

// checkRoom: the data partition is as large as was asked, and the rest is left to the user.
func (d *diskLab) checkRoom(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "sfdisk", "--json", d.disk()).Output()
	if err != nil {
		t.Fatalf("read the partition table: %v", err)
	}
	var disk struct {
		Table struct {
			Partitions []struct {
				Name string `json:"name"`
				Size int64  `json:"size"` // sectors
			} `json:"partitions"`
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal(out, &disk); err != nil {
		t.Fatal(err)
	}
	last := disk.Table.Partitions[len(disk.Table.Partitions)-1]
	if last.Name != disklayout.DataLabel || last.Size*512 != 5<<30 {
		t.Errorf("the last partition is %+v; want %s of 5 GiB", last, disklayout.DataLabel)
	}
}

// slots is a machine's disk as `slipway node status -o json` prints it.
type slots struct {
	Path    string `json:"path"`
	Booted  string `json:"booted"`
	Good    string `json:"good"`
	Trying  string `json:"trying"`
	Failure string `json:"failure"`
	Waiting string `json:"waiting_for"`
	Problem string `json:"problem"`
}

// slotsOf asks a machine itself.
func slotsOf(lab *vmtest.Lab, id string) (slots, error) {
	out, err := lab.TryCLI("node", "status", id, "-o", "json")
	if err != nil {
		return slots{}, err
	}
	var status struct {
		Disk slots `json:"system_disk"`
	}
	return status.Disk, json.Unmarshal([]byte(out), &status)
}

// awaitSlot waits until the machine runs from a slot that is good, its Node is Ready, and it
// says why it left the other; empty: it does not.
func (d *diskLab) awaitSlot(t *testing.T, want, failure string) {
	t.Helper()
	d.Await(t, "the node is Ready from slot "+want, slotPatience, func() error {
		s, err := slotsOf(d.Lab, d.id(t))
		if err != nil {
			return err
		}
		if s.Booted != want || s.Good != want || s.Problem != "" || !strings.Contains(s.Failure, failure) || failure == "" && s.Failure != "" {
			return fmt.Errorf("it says %+v", s)
		}
		return nodeReady(d.Lab)
	})
	if out := d.CLI(t, "machines", "show", d.id(t)); !strings.Contains(out, failure) {
		t.Errorf("the boot service does not show why the slot was left:\n%s", out)
	}
}

// bootID is the machine's latest start.
func (d *diskLab) bootID(t *testing.T) string {
	return strings.TrimSpace(d.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.bootID}"))
}

// awaitRestart waits until the machine has started anew and its Node is Ready.
func (d *diskLab) awaitRestart(t *testing.T, before string) {
	t.Helper()
	d.Await(t, "the node is Ready again, booted anew", slotPatience, func() error {
		now, err := d.TryKubectl("get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.bootID}")
		if err == nil && strings.TrimSpace(now) == before {
			err = fmt.Errorf("it has not restarted yet: boot ID %s", now)
		}
		if err != nil {
			return err
		}
		return nodeReady(d.Lab)
	})
}

// keepsToItsDisk: with another machine's disk in it, of the same image, a machine runs from the one
// that its loader came from, and does not write to the other.
func keepsToItsDisk(t *testing.T, d *diskLab) {
	before := d.bootID(t)
	own, err := slotsOf(d.Lab, d.id(t))
	if err != nil {
		t.Fatal(err)
	}
	d.Switch(t, d.machine, qemu.PowerOff)
	foreign := filepath.Join(d.Dir(), d.machine+".disk2")
	script := `cp --sparse=always "$1" "$2" && for n in 1 2 3 4 5 6; do sfdisk --quiet --part-uuid "$2" $n "$(cat /proc/sys/kernel/random/uuid)" || exit; done`
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", d.disk(), foreign).CombinedOutput(); err != nil {
		t.Fatalf("make another machine's disk: %v\n%s", err, out)
	}
	defer func() { // the chapters to come know of no such disk
		if err := errors.Join(os.Truncate(foreign, 0), os.Truncate(foreign, 9<<30)); err != nil {
			t.Error(err)
		}
	}()
	made, err := os.Stat(foreign)
	if err != nil {
		t.Fatal(err)
	}
	d.Switch(t, d.machine, qemu.PowerOn)
	d.awaitRestart(t, before)
	d.awaitSlot(t, "a", "")
	if now, err := slotsOf(d.Lab, d.id(t)); err != nil || now.Path != own.Path {
		t.Errorf("it runs from %s, %v; want %s", now.Path, err, own.Path)
	}
	if after, err := os.Stat(foreign); err != nil || !after.ModTime().Equal(made.ModTime()) {
		t.Errorf("the other machine's disk was written to at %v, %v", after.ModTime(), err)
	}
}

// arguments is a recipe with more kernel arguments.
func arguments(more string) vmtest.Recipe {
	return vmtest.Recipe{Old: "panic=30]", New: "panic=1, " + more + "]"}
}

// badInit is a recipe with another init, of folder badinit.
func badInit(name string) vmtest.Recipe {
	return vmtest.Recipe{Old: "import: slipway/cmd/init", New: "import: slipway/test/vm/badinit/" + name}
}

// noPasswords is a recipe without /etc/passwd, which kubelet does not start without.
var noPasswords = vmtest.Recipe{Old: "path: /usr/share/slipway/etc/passwd", New: "path: /usr/share/slipway/etc/nobody"}

// upgrade has the machine run what the boot service serves, and returns what was said of it.
func (d *diskLab) upgrade(t *testing.T, flags ...string) (string, error) {
	limit := d.Timeout(slotPatience)
	args := append([]string{"node", "upgrade", d.id(t), "--yes", "--timeout", limit.String()}, flags...)
	return d.TryWithin(limit+d.Timeout(2*time.Minute), d.Slipway(args...)...)
}

// upgrades: the machine runs from the other slot, which is good, and holds what it held.
func upgrades(t *testing.T, d *diskLab) { upgradesBy("slipway.lab=2", "b")(t, d) }

// upgradesBy upgrades to an image with another kernel argument, into a slot.
func upgradesBy(argument, slot string, flags ...string) func(*testing.T, *diskLab) {
	return func(t *testing.T, d *diskLab) {
		d.Serve(t, d.BuildImage(t, arguments(argument)))
		out, err := d.upgrade(t, flags...)
		t.Logf("slipway node upgrade:\n%s", out)
		if err != nil {
			t.Fatal(err)
		}
		awaitNodeReady(t, d.Lab, recoverPatience)
		d.awaitSlot(t, slot, "")
		d.Kubectl(t, "get", "configmap", "kept")
	}
}

// spoil overwrites blocks of a slot's root image while the machine is off, one in so many.
func (d *diskLab) spoil(t *testing.T, slot disklayout.Slot, from, to, every int64) {
	d.Switch(t, d.machine, qemu.PowerOff)
	file, err := os.OpenFile(d.disk(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range disklayout.System() {
		for at := from; p.Label == slot.Label() && at < to; at += every {
			if _, err := file.WriteAt([]byte("this was not here before"), p.Start+at); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// leavesCorruptedSlot: what cannot be read right is not run, and the machine goes back.
func leavesCorruptedSlot(t *testing.T, d *diskLab) {
	before := d.bootID(t)
	d.spoil(t, disklayout.SlotB, 8*disklayout.MiB, 96*disklayout.MiB, disklayout.MiB)
	d.Switch(t, d.machine, qemu.PowerOn)
	d.awaitRestart(t, before)
	d.awaitSlot(t, "a", "a block of its root image is not what its root hash says")
}

// badImage: the machine is back where it was, and says why.
func badImage(change vmtest.Recipe, why string) func(*testing.T, *diskLab) {
	return func(t *testing.T, d *diskLab) {
		d.Serve(t, d.BuildImage(t, change))
		out, err := d.upgrade(t, "--health-timeout", "4m")
		t.Logf("slipway node upgrade:\n%s", out)
		if err == nil || !strings.Contains(out, why) {
			t.Errorf("the upgrade ended with %v; want: %s", err, why)
		}
		d.awaitSlot(t, "a", why)
	}
}

// rollsBack: to what ran before, and it is kept.
func rollsBack(t *testing.T, d *diskLab) {
	upgrades(t, d)
	out, err := d.TryWithin(d.Timeout(slotPatience), d.Slipway("node", "rollback", d.id(t), "--yes")...)
	t.Logf("slipway node rollback:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	d.awaitSlot(t, "a", "")
}

// leavesDeadSlot: a slot that was good and whose root cannot even be mounted is tried three times.
func leavesDeadSlot(t *testing.T, d *diskLab) {
	before := d.bootID(t)
	d.spoil(t, disklayout.SlotA, 0, 1, 1)
	d.Switch(t, d.machine, qemu.PowerOn)
	d.awaitRestart(t, before)
	d.awaitSlot(t, "b", "3 times in a row without coming up")
}

// resets: the cluster is given up, and its machine is discovered as if nobody had seen it before.
func resets(t *testing.T, d *diskLab) {
	d.CLI(t, "cluster", "delete", "prod", "--yes")
	awaitFree(t, d.Lab, d.id(t), d.disk())
}

// awaitFree waits until a machine has reset itself, and runs from RAM.
func awaitFree(t *testing.T, lab *vmtest.Lab, id, disk string) {
	t.Helper()
	lab.Await(t, "machine "+id+" is free and runs from RAM", installPatience, func() error {
		out, err := lab.TryCLI("machines", "show", id)
		free := strings.Contains(out, "a cluster to claim it") && !strings.Contains(out, "Installed on")
		if err == nil && !free {
			err = fmt.Errorf("it is not free:\n%s", out)
		}
		return err
	})
	if err := exec.CommandContext(t.Context(), "blkid", "-p", disk).Run(); err == nil {
		t.Error("the disk still has a signature")
	}
}

// firstByte is how far away the next byte is that is not zero; -1: there is none.
func firstByte(r io.Reader) (int64, error) {
	block, zeros := make([]byte, disklayout.MiB), make([]byte, disklayout.MiB)
	for at := int64(0); ; {
		n, err := r.Read(block)
		switch {
		case errors.Is(err, io.EOF):
			return -1, nil
		case err != nil:
			return 0, err
		case !bytes.Equal(block[:n], zeros[:n]):
			return at + int64(len(block[:n])-len(bytes.TrimLeft(block[:n], "\x00"))), nil
		}
		at += int64(n)
	}
}
