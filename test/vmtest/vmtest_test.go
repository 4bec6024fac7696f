package vmtest_test

import (
	"strings"
	"testing"
	"time"

	"slipway/qemu"
	"slipway/test/vmtest"
)

// TestLanguage tells the shortest story: firmware without anyone to boot from.
func TestLanguage(t *testing.T) {
	machine := vmtest.BIOS("m1")
	machine.MemoryMiB = 128
	lab := vmtest.New(t, vmtest.NoService(), vmtest.Machines(machine))
	lab.AwaitConsole(t, "m1", "SeaBIOS", 30*time.Second)
	lab.Switch(t, "m1", qemu.PowerOff)
	if status, err := lab.Status(t.Context()); err != nil || status.Machines[0].Running {
		t.Errorf("after power off: %+v, %v", status, err)
	}
	if id := lab.MachineID(t, "m1"); id != "52-54-00-77-00-01" {
		t.Errorf("machine ID %s", id)
	}
	out, err := lab.Try("ip", "route", "show", "default")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("routes out of the lab: %q, %v", out, err)
	}
}
