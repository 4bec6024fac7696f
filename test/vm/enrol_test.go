package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/qemu"
	"slipway/test/vmtest"
)

// phase asks the boot service where a machine is in its life.
func phase(lab *vmtest.Lab, id string) (string, error) {
	out, err := lab.TryCLI("machines", "show", id, "-o", "json")
	if err != nil {
		return "", err
	}
	var machine struct {
		Phase string `json:"phase"`
	}
	err = json.Unmarshal([]byte(out), &machine)
	return machine.Phase, err
}

func awaitPhase(t *testing.T, lab *vmtest.Lab, machine, want string, within time.Duration) {
	t.Helper()
	id := lab.MachineID(t, machine)
	lab.Await(t, machine+" is "+want, within, func() error {
		got, err := phase(lab, id)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// Clocks that are years off: a battery that was empty, and one that nobody knows of.
const (
	longAgo = "2001-02-03T04:05:06"
	farAway = "2099-02-03T04:05:06"
)

// TestFirmwareToEnrolled boots machines by firmware that has to be given a loader: UEFI's own
// PXE client, a BIOS network card without iPXE, and UEFI HTTP boot. The clocks of two are wrong.
func TestFirmwareToEnrolled(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	http := vmtest.UEFI("http")
	http.PXE = qemu.HTTPBoot
	uefi, bios := vmtest.UEFI("uefi"), vmtest.PlainBIOS("bios")
	uefi.Clock, bios.Clock = farAway, longAgo
	for _, machine := range []qemu.Machine{uefi, bios, http} {
		t.Run(machine.Name, func(t *testing.T) {
			if machine.PXE == qemu.HTTPBoot {
				needLong(t) // it is the loader of the first, fetched in another way
			}
			lab := vmtest.New(t, vmtest.Machines(machine), vmtest.Beside())
			awaitPhase(t, lab, machine.Name, "approved", enrolPatience)
			t.Logf("timeline:\n%s", lab.CLI(t, "machines", "timeline", lab.MachineID(t, machine.Name)))
		})
	}
}

// TestWrongPinNeverEnrols swaps the boot service for another one, with a CA of its own, while
// the machine boots: the machine must notice, say so, and send nothing.
func TestWrongPinNeverEnrols(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	lab := vmtest.New(t, vmtest.Beside())
	lab.AwaitConsole(t, "m1", "Linux version", enrolPatience)
	serve := func(action qemu.Action) {
		t.Helper()
		if err := lab.Service(t.Context(), action); err != nil {
			t.Fatal(err)
		}
	}
	serve(qemu.PowerOff)
	if err := os.RemoveAll(filepath.Join(lab.Dir(), "data")); err != nil {
		t.Fatal(err)
	}
	serve(qemu.PowerOn)
	lab.AwaitConsole(t, "m1", "CA pin", enrolPatience)
	got, err := phase(lab, lab.MachineID(t, "m1"))
	if err == nil && got != "discovered" && got != "booting" {
		err = errors.New("it is " + got)
	} else if got == "" {
		err = nil // the new boot service has never heard of it
	}
	if err != nil {
		t.Errorf("the impostor knows the machine: %v", err)
	}
}
