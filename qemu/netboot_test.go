package qemu

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"slipway/test/need"
)

// TestNetworkBoot boots all three kinds of firmware from a server that is not ours: the
// packets on the bridge are what real firmware sends, and a loader it is told to fetch runs.
func TestNetworkBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("boots three machines under emulation")
	}
	machines := []Machine{
		{Name: "card", MemoryMiB: 256, CPUs: 1},
		{Name: "plain", MemoryMiB: 256, CPUs: 1, PXE: PlainPXE, Chipset: "pc", NIC: "e1000"},
		{Name: "uefi", MemoryMiB: 512, CPUs: 1, Firmware: UEFI},
	}
	needLab(t, machines)
	leash := startLab(t, t.TempDir(), Config{Machines: machines, Service: strangersServer(t)})
	factor, err := Factor(t.Context(), "qemu-system-x86_64", TCG)
	if err != nil {
		t.Fatal(err)
	}
	within := time.Duration(factor * float64(2*time.Minute))
	for _, want := range []struct{ machine, text string }{
		{"card", "Filename: http://10.77.0.1/boot.ipxe"}, // announced itself as iPXE at once
		{"plain", "/undionly.kpxe... ok"},                // fetched the loader,
		{"plain", "using undionly on"},                   // which found the card's own PXE,
		{"plain", "Filename: http://10.77.0.1/boot.ipxe"},
		{"uefi", "NBP filename is snponly.efi"}, // the same by the firmware's own client
		{"uefi", "using SNP on"},
		{"uefi", "Filename: http://10.77.0.1/boot.ipxe"},
	} {
		await(t, want.machine+": "+want.text, within, consoleSays(leash.Lab, want.machine, want.text))
	}
}

// strangersServer is dnsmasq, set up to hand out loaders and to know an iPXE by its option.
func strangersServer(t *testing.T) *Service {
	t.Helper()
	dnsmasq, err := lookSbin("dnsmasq")
	if err != nil {
		need.Lacking(t, "no DHCP and TFTP server to boot from: %v", err)
	}
	tftp := t.TempDir()
	for _, loader := range []string{"undionly.kpxe", "snponly.efi"} {
		if out, err := exec.Command("cp", "/usr/lib/ipxe/"+loader, tftp).CombinedOutput(); err != nil {
			need.Lacking(t, "no loaders (Debian package ipxe): %s", out)
		}
	}
	return &Service{Command: []string{
		dnsmasq, "--no-daemon", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=" + Bridge, "--bind-interfaces",
		"--dhcp-range=10.77.0.100,10.77.0.200", "--dhcp-leasefile=" + filepath.Join(tftp, "leases"),
		"--dhcp-match=set:ipxe,175", "--dhcp-match=set:uefi,option:client-arch,7",
		"--dhcp-boot=tag:ipxe,http://10.77.0.1/boot.ipxe",
		"--dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi", "--dhcp-boot=tag:!ipxe,tag:!uefi,undionly.kpxe",
		"--enable-tftp", "--tftp-root=" + tftp,
	}}
}
