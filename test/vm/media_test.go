package vm

import (
	"fmt"
	"os"
	"path/filepath"
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
// each firmware from a CD, a stick and its own disk, on which the raw image was written.
func TestMediaToEnrolled(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	raw, iso := filepath.Join(t.TempDir(), "slipway.raw"), filepath.Join(t.TempDir(), "slipway.iso")
	media := []struct {
		machine qemu.Machine
		plug    func(*qemu.Machine)
		always  bool // also where it takes long
	}{
		{vmtest.UEFI("uefi-stick"), func(m *qemu.Machine) { m.Stick = iso }, true},
		{vmtest.BIOS("bios-disk"), func(m *qemu.Machine) { m.Image = raw }, true},
		{vmtest.UEFI("uefi-cd"), func(m *qemu.Machine) { m.CD = iso }, false},
		{vmtest.UEFI("uefi-disk"), func(m *qemu.Machine) { m.Image = raw }, false},
		{vmtest.BIOS("bios-cd"), func(m *qemu.Machine) { m.CD = iso }, false},
		{vmtest.BIOS("bios-stick"), func(m *qemu.Machine) { m.Stick = iso }, false},
	}
	var machines []qemu.Machine
	for _, medium := range media {
		m := local(medium.machine)
		medium.plug(&m)
		machines = append(machines, m)
	}
	lab := vmtest.New(t, vmtest.Machines(machines...), vmtest.Off())
	lab.Media(t, "raw", raw)
	lab.Media(t, "iso", iso)
	for i, medium := range media {
		name := machines[i].Name
		t.Run(name, func(t *testing.T) {
			if !medium.always {
				needCores(t, 4)
			}
			lab.Switch(t, name, qemu.PowerOn)
			awaitPhase(t, lab, name, "approved", enrolPatience)
			lab.Switch(t, name, qemu.PowerOff)
		})
	}
}

// rawMachine is a lab whose one machine boots by UEFI from a disk on which the raw image was
// written; it serves a copy of the image, whose folder is returned.
func rawMachine(t *testing.T) (lab *vmtest.Lab, image string) {
	t.Helper()
	machine := local(vmtest.UEFI("m1"))
	machine.Image = filepath.Join(t.TempDir(), "slipway.raw")
	image = vmtest.CopyImage(t)
	lab = vmtest.New(t, vmtest.Machines(machine), vmtest.Off(), vmtest.Flags("--image", image))
	lab.Media(t, "raw", machine.Image)
	lab.Switch(t, "m1", qemu.PowerOn)
	awaitPhase(t, lab, "m1", "approved", enrolPatience)
	return lab, image
}

// TestRawToReady: a disk that was written elsewhere is adopted by the machine's cluster, and
// what the machine writes to it is there after a restart.
func TestRawToReady(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	needCores(t, 4)
	lab, _ := rawMachine(t)
	createCluster(t, lab, "--disk", "any")
	awaitNodeReady(t, lab, recoverPatience)
	rebootComesBack(t, lab)
}

// TestUEFIFallsBack upgrades a machine to an image whose kernel finds no init: it panics, and
// systemd-boot, which has counted the one try, starts the slot before.
func TestUEFIFallsBack(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	needCores(t, 4)
	lab, image := rawMachine(t)
	id := lab.MachineID(t, "m1")
	file := filepath.Join(t.TempDir(), "prod.yaml")
	document := fmt.Sprintf("name: prod\ninstall: {disk: any}\nmachines:\n- {id: %s, role: control-plane}\n", id)
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	lab.CLI(t, "cluster", "create", "-f", file, "--yes")
	lab.Await(t, "the node answers", enrolPatience, func() error {
		_, err := lab.TryCLI("node", "status", id)
		return err
	})
	lab.Vary(t, image, "v0.0.0-bad", "rdinit=/nowhere panic=1")
	upgrade := lab.Start(t, lab.Slipway("node", "upgrade", id, "--no-drain", "--yes")...)
	defer upgrade.Stop(t)
	lab.AwaitConsole(t, "m1", "Kernel panic", bootPatience)
	lab.Await(t, "the node says why it runs from the slot before", bootPatience, func() error {
		out, err := lab.TryCLI("node", "status", id)
		if err == nil && !(strings.Contains(out, "slot a of /dev/vda") && strings.Contains(out, "v0.0.0-bad")) {
			err = fmt.Errorf("it says:\n%s", out)
		}
		return err
	})
	t.Logf("slipway node status:\n%s", lab.CLI(t, "node", "status", id))
}
