package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"slipway/qemu"
	"slipway/test/vmtest"
)

// local is a machine whose firmware does not boot from the network.
func local(m qemu.Machine) qemu.Machine {
	m.Boot, m.DisksGiB, m.MemoryMiB = qemu.LocalBoot, []int{8}, 2048
	return m
}

// TestMediaToEnrolled boots machines without network boot from what a person carries to them:
// each firmware from a CD, a stick and its own disk, on which the raw image was written. The one
// with a BIOS and a CD goes on to its disk.
func TestMediaToEnrolled(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	raw, iso := filepath.Join(t.TempDir(), "slipway.raw"), filepath.Join(t.TempDir(), "slipway.iso")
	media := []struct {
		machine qemu.Machine
		plug    func(*qemu.Machine)
		always  bool // also where it takes long
		then    func(*testing.T, *vmtest.Lab, string)
	}{
		{vmtest.UEFI("uefi-stick"), func(m *qemu.Machine) { m.Stick = iso }, true, nil},
		{vmtest.BIOS("bios-disk"), func(m *qemu.Machine) { m.Image = raw }, true, nil},
		{vmtest.UEFI("uefi-cd"), func(m *qemu.Machine) { m.CD = iso }, false, nil},
		{vmtest.UEFI("uefi-disk"), func(m *qemu.Machine) { m.Image = raw }, false, nil},
		{vmtest.BIOS("bios-cd"), func(m *qemu.Machine) { m.CD = iso }, false, goesOnToDisk},
		{vmtest.BIOS("bios-stick"), func(m *qemu.Machine) { m.Stick = iso }, false, nil},
	}
	var machines []qemu.Machine
	for _, medium := range media {
		m := local(medium.machine)
		medium.plug(&m)
		machines = append(machines, m)
	}
	lab := vmtest.New(t, vmtest.Machines(machines...), vmtest.Off(), vmtest.Beside())
	lab.Media(t, "raw", raw)
	lab.Media(t, "iso", iso)
	for i, medium := range media {
		name := machines[i].Name
		t.Run(name, func(t *testing.T) {
			if !medium.always {
				needLong(t)
			}
			lab.Switch(t, name, qemu.PowerOn)
			awaitPhase(t, lab, name, "approved", enrolPatience)
			if medium.then != nil {
				medium.then(t, lab, name)
			}
			lab.Switch(t, name, qemu.PowerOff)
		})
	}
}

// goesOnToDisk: a machine that runs from a medium behind its disk in the boot order installs
// itself, and starts from the disk from then on, with the medium still in.
func goesOnToDisk(t *testing.T, lab *vmtest.Lab, machine string) {
	t.Helper()
	id, before := lab.MachineID(t, machine), fromMedium(t, lab, machine)
	assign(t, lab, id)
	lab.Await(t, "it runs from its disk", installPatience, func() error { return runsFrom(lab, id, "slot a of /dev/vda") })
	awaitNodeReady(t, lab, bootPatience)
	if after := fromMedium(t, lab, machine); before == 0 || after != before {
		t.Errorf("kernels of the medium told their command line %d times before it was installed, and %d times in all", before, after)
	}
}

// fromMedium is how often a kernel of a medium told its command line. That of an installed
// system does not name the boot service.
func fromMedium(t *testing.T, lab *vmtest.Lab, machine string) int {
	t.Helper()
	return len(mediumLine.FindAllString(lab.Console(t, machine), -1))
}

var mediumLine = regexp.MustCompile(`ommand line: .* slipway\.server=`)

// rawMachine is a lab whose one machine boots by UEFI from a disk on which the raw image was
// written; it serves a copy of the image, whose folder is returned.
func rawMachine(t *testing.T) (lab *vmtest.Lab, image string) {
	t.Helper()
	machine := local(vmtest.UEFI("m1"))
	machine.Image = filepath.Join(t.TempDir(), "slipway.raw")
	image = vmtest.CopyImage(t)
	lab = vmtest.New(t, vmtest.Machines(machine), vmtest.Off(), vmtest.Beside(), vmtest.Flags("--image", image))
	lab.Media(t, "raw", machine.Image)
	lab.Switch(t, "m1", qemu.PowerOn)
	awaitPhase(t, lab, "m1", "approved", enrolPatience)
	return lab, image
}

// TestNetworkThenDisk: each firmware that is given a loader gets, once its machine is installed,
// what leads it on to the disk, though the network stays first in its boot order. A BIOS whose disk
// does not boot any more comes back over and over, and is held.
func TestNetworkThenDisk(t *testing.T) {
	needLong(t)
	http := vmtest.UEFI("http")
	http.PXE = qemu.HTTPBoot
	for _, machine := range []qemu.Machine{vmtest.UEFI("uefi"), http, vmtest.PlainBIOS("bios")} {
		t.Run(machine.Name, func(t *testing.T) {
			machine.DisksGiB, machine.MemoryMiB = []int{8}, 2048
			lab := vmtest.New(t, vmtest.Machines(machine), vmtest.Beside())
			id := lab.MachineID(t, machine.Name)
			assign(t, lab, id)
			lab.Await(t, "it runs from its disk", bootPatience, func() error { return runsFrom(lab, id, "slot a of /dev/vda") })
			if machine.Firmware == qemu.BIOS {
				isHeld(t, lab, machine.Name)
			}
			t.Logf("timeline:\n%s", lab.CLI(t, "machines", "timeline", id))
		})
	}
}

// isHeld: the first sector of a machine's disk is lost. Nobody does anything about it, and its
// console and the boot service say that it is held, and why.
func isHeld(t *testing.T, lab *vmtest.Lab, machine string) {
	t.Helper()
	lab.Switch(t, machine, qemu.PowerOff)
	disk, err := os.OpenFile(filepath.Join(lab.Dir(), machine+".disk0"), os.O_WRONLY, 0)
	if err == nil {
		_, err = disk.WriteAt(make([]byte, 512), 0)
		err = errors.Join(err, disk.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	lab.Switch(t, machine, qemu.PowerOn)
	lab.AwaitConsole(t, machine, "Slipway holds this machine", bootPatience)
	id := lab.MachineID(t, machine)
	out := lab.CLI(t, "machines", "show", id)
	for _, words := range []string{"came back by the network", "slipway machines boot " + id + " --from disk"} {
		if !strings.Contains(out, words) {
			t.Errorf("%q is not in what is shown of it:\n%s", words, out)
		}
	}
}

// assign makes a cluster of one machine, which lives on its disk; the machine may be blank yet.
func assign(t *testing.T, lab *vmtest.Lab, id string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prod.yaml")
	document := fmt.Sprintf("name: prod\ninstall: {disk: any}\nmachines:\n- {id: %s, role: control-plane}\n", id)
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	lab.CLI(t, "cluster", "create", "-f", file, "--yes", "--wait=false")
}

// runsFrom asks the node itself, whose answer must have all the words.
func runsFrom(lab *vmtest.Lab, id string, words ...string) error {
	out, err := lab.TryCLI("node", "status", id)
	for _, word := range words {
		if err == nil && !strings.Contains(out, word) {
			err = fmt.Errorf("%q is not in what it says:\n%s", word, out)
		}
	}
	return err
}

// TestRawToReady: a disk that was written elsewhere is adopted by the machine's cluster, and
// what the machine writes to it is there after a restart.
func TestRawToReady(t *testing.T) {
	needLong(t)
	lab, _ := rawMachine(t)
	createCluster(t, lab, "--disk", "any")
	awaitNodeReady(t, lab, recoverPatience)
	rebootComesBack(t, lab)
}

// TestUEFIFallsBack upgrades a machine to an image whose kernel finds no init: it panics, and
// systemd-boot, which has counted the one try, starts the slot before.
func TestUEFIFallsBack(t *testing.T) {
	needLong(t)
	lab, image := rawMachine(t)
	id := lab.MachineID(t, "m1")
	assign(t, lab, id)
	awaitNodeReady(t, lab, bootPatience)
	lab.Vary(t, image, "v99.0.0-bad", "rdinit=/nowhere panic=1")
	upgrade := lab.Start(t, lab.Slipway("node", "upgrade", id, "--no-drain", "--yes")...)
	defer upgrade.Stop(t)
	lab.AwaitConsole(t, "m1", "Kernel panic", bootPatience)
	lab.Await(t, "the node says why it runs from the slot before", bootPatience, func() error {
		return runsFrom(lab, id, "slot a of /dev/vda", "v99.0.0-bad")
	})
	t.Logf("slipway node status:\n%s", lab.CLI(t, "node", "status", id))
}
