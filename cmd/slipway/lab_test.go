package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/qemu"
)

func TestLabConfig(t *testing.T) {
	image := t.TempDir()
	if err := os.WriteFile(filepath.Join(image, "manifest.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	up := labUp{
		specs:    []string{"m1,firmware=uefi", "m2,memory=4096,cpus=4"},
		template: qemu.Machine{MemoryMiB: 3072, CPUs: 2},
		firmware: "bios", image: image, address: "10.9.8.1/24", approve: "any", service: true,
	}
	got, err := up.config("big", "/state/big", "/bin/slipway")
	if err != nil {
		t.Fatal(err)
	}
	want := qemu.Config{
		Name: "big", Address: "10.9.8.1/24",
		Machines: []qemu.Machine{
			{Name: "m1", Firmware: qemu.UEFI, MemoryMiB: 3072, CPUs: 2},
			{Name: "m2", Firmware: qemu.BIOS, MemoryMiB: 4096, CPUs: 4},
		},
		Service: &qemu.Service{
			Command: []string{"/bin/slipway", "serve", "--data-dir", "/state/big/data", "--image", image,
				"--interface", "br0", "--range", "10.9.8.100-10.9.8.200", "--approve", "any"},
			Ready: "10.9.8.1:8443",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLabConfigRefuses(t *testing.T) {
	for complaint, up := range map[string]labUp{
		"slipway image build --out nowhere": {image: "nowhere", address: "10.77.0.1/24", service: true},
		`unknown setting "colour"`:          {specs: []string{"m1,colour=red"}},
	} {
		if _, err := up.config("x", "/state/x", "/bin/slipway"); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%+v: %v, want %q", up, err, complaint)
		}
	}
}

func TestLeaseRange(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.77.0.1/24":  "10.77.0.100-10.77.0.200",
		"172.16.5.1/16": "172.16.0.100-172.16.0.200",
		"10.0.0.1/25":   "",
		"fd00::1/64":    "",
	} {
		got, err := leaseRange(netip.MustParsePrefix(prefix))
		if got != want || (err != nil) != (want == "") {
			t.Errorf("leaseRange(%s) = %q, %v; want %q", prefix, got, err, want)
		}
	}
}

func TestSplitName(t *testing.T) {
	for line, want := range map[string][]string{
		"get nodes -A":           {"", "get nodes -A"},
		"big -- get nodes":       {"big", "get nodes"},
		"exec pod -- busybox ls": {"", "exec pod -- busybox ls"},
	} {
		name, command := splitName(strings.Fields(line))
		if diff := cmp.Diff(want, []string{name, strings.Join(command, " ")}); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
}

func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	since := now.Add(-90 * time.Second)
	var out strings.Builder
	err := printStatus(&out, qemu.Status{
		Name: "default", State: qemu.StateUp, Dir: "/state/default", PID: 7, Address: "10.77.0.1/24", Accel: qemu.TCG,
		Service: &qemu.ProcessStatus{Running: true, Since: since},
		Machines: []qemu.MachineStatus{
			{Machine: qemu.Machine{CPUs: 2}.WithDefaults(0), ProcessStatus: qemu.ProcessStatus{Running: true, Since: since}},
			{Machine: qemu.Machine{CPUs: 2}.WithDefaults(1), ProcessStatus: qemu.ProcessStatus{Since: since, LastEnd: "exit status 0"}},
			{Machine: qemu.Machine{CPUs: 2}.WithDefaults(2)},
		},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	want := `lab default: up, holder 7, address 10.77.0.1/24, accelerator tcg, files in /state/default
boot service: running for 1m30s
MACHINE  MAC                FIRMWARE  CPUS  MEMORY    POWER
m1       52:54:00:77:00:01  bios      2     3072 MiB  on for 1m30s
m2       52:54:00:77:00:02  bios      2     3072 MiB  off for 1m30s (exit status 0)
m3       52:54:00:77:00:03  bios      2     3072 MiB  off
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
