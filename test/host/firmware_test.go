package host

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"slipway/test/need"
	"slipway/test/netns"
)

// Real firmware boots from us here, as far as fetching the kernel: what it
// loads after that is noise. Where it goes on is the VM tier's story.

const (
	guest = "52-54-00-12-34-56"
	uuid  = "8a3f1c02-55aa-4b1e-9d00-0123456789ab"
	ovmf  = "/usr/share/OVMF/OVMF_CODE.fd"
)

// loadersFrom returns real iPXE loaders: from the built image, or from a
// directory that SLIPWAY_LOADERS names.
func loadersFrom(t *testing.T) map[string][]byte {
	t.Helper()
	dir := os.Getenv("SLIPWAY_LOADERS")
	if dir == "" {
		dir = "../../.build/image/loaders"
	}
	table := map[string][]byte{}
	for _, name := range []string{"undionly.kpxe", "snponly.efi"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			need.Lacking(t, "needs real loaders: %v", err)
		}
		table[name] = data
	}
	return table
}

// power starts a machine that can boot only from the network, and returns its console.
func (s *service) power(ctx context.Context, t *testing.T, args ...string) *bytes.Buffer {
	t.Helper()
	var console bytes.Buffer
	args = append([]string{"-accel", "tcg", "-machine", "graphics=off", "-cpu", "max", "-m", "512", "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot",
		"-uuid", uuid, "-netdev", "tap,id=n,ifname=" + s.Tap() + ",script=no,downscript=no"}, args...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.Stdout, cmd.Stderr = &locked{w: &console, mu: &s.mu}, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log("console:\n" + regexp.MustCompile(`\x1b\[[0-9;=]*[a-zA-Z]`).ReplaceAllString(console.String(), ""))
		}
	})
	return &console
}

func (s *service) fetched(mac, what string) func() bool {
	return func() bool { return strings.Contains(strings.Join(s.timeline(hardware(guest)), "\n"), what) }
}

// wants checks that lines come in the timeline, in this order.
func wants(t *testing.T, lines []string, want ...string) {
	t.Helper()
	rest := strings.Join(lines, "\n")
	for _, w := range want {
		_, after, ok := strings.Cut(rest, w)
		if !ok {
			t.Errorf("no %q where it should be in the timeline\n%s", w, strings.Join(lines, "\n"))
			return
		}
		rest = after
	}
}

func TestBIOS(t *testing.T) {
	netns.Require(t, "qemu-system-x86_64")
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	s := start(t, nil, loadersFrom(t), map[string][]byte{"/image/kernel": noise(1 << 20), "/image/initramfs": noise(1 << 20)}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// QEMU's cards have iPXE in their ROM. So that our BIOS loader runs too,
	// it is loaded as a second stage, and asks for everything again.
	s.mu.Lock()
	s.scripts = []string{"#!ipxe\nchain tftp://10.99.0.1/undionly.kpxe\n"}
	s.mu.Unlock()
	console := s.power(ctx, t, "-device", "virtio-net-pci,netdev=n,mac="+hardware(guest), "-boot", "n")
	eventually(ctx, t, "the kernel to be fetched", s.fetched(hardware(guest), "http: /image/kernel sent, 1048576 bytes"))
	wants(t, s.timeline(hardware(guest)), "DISCOVER from BIOS iPXE: OFFER", "http://10.99.0.1/boot.ipxe", "REQUEST from BIOS iPXE: ACK", "http: /boot.ipxe sent",
		`tftp: "undionly.kpxe" sent`, "DISCOVER from BIOS iPXE: OFFER", "http: /boot.ipxe sent", "http: /image/kernel sent")
	if got := s.uuid(hardware(guest)); got != uuid {
		t.Errorf("its UUID is %q, want %q", got, uuid)
	}
	// Noise does not boot. The script says so, and tries again.
	eventually(ctx, t, "the script to try again", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(console.String(), "Slipway: that failed") && strings.Contains(console.String(), "(try 2 of 10)")
	})
}

func TestUEFI(t *testing.T) {
	netns.Require(t, "qemu-system-x86_64")
	need.File(t, ovmf, "ovmf")
	if testing.Short() {
		t.Skip("takes half a minute each")
	}
	cases := []struct {
		name string
		args []string
		want []string
	}{
		{"PXE", nil, []string{"DISCOVER from UEFI x64 PXE: OFFER", `tftp: "snponly.efi" sent`}},
		{"HTTPBoot", []string{"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"},
			[]string{"DISCOVER from UEFI x64 HTTP boot: OFFER", "http: /loaders/snponly.efi sent"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			loaders := loadersFrom(t)
			s := start(t, nil, loaders, map[string][]byte{
				"/image/kernel": noise(1 << 20), "/image/initramfs": noise(1 << 20), "/loaders/snponly.efi": loaders["snponly.efi"]}, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			// Without the card's own ROM, OVMF's driver and network stack are in charge.
			s.power(ctx, t, append(c.args, "-drive", "if=pflash,format=raw,readonly=on,file="+ovmf,
				"-device", "virtio-net-pci,netdev=n,romfile=,mac="+hardware(guest), "-boot", "n", "-device", "virtio-rng-pci")...)
			eventually(ctx, t, "the kernel to be fetched", s.fetched(hardware(guest), "http: /image/kernel sent, 1048576 bytes"))
			wants(t, s.timeline(hardware(guest)), append(c.want, "DISCOVER from UEFI x64 iPXE: OFFER", "http: /boot.ipxe sent", "http: /image/kernel sent")...)
			if got := s.uuid(hardware(guest)); got != uuid {
				t.Errorf("its UUID is %q, want %q", got, uuid)
			}
		})
	}
}

// hardware is a machine ID as an address is usually written.
func hardware(id string) string { return strings.ReplaceAll(id, "-", ":") }

func (s *service) uuid(mac string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.MAC.String() == mac && e.UUID != "" {
			return e.UUID
		}
	}
	return ""
}
