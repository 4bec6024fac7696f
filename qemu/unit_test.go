package qemu

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; look at it, then run with -update (-want +got):\n%s", path, diff)
	}
}

func TestCommand(t *testing.T) {
	host := Host{QEMU: "/usr/bin/qemu", Accel: TCG, OVMFCode: "/fw/code.fd", OVMFVars: "/fw/vars.fd", IPXE: "/fw/ipxe.lkrn"}
	kvm := host
	kvm.Accel = KVM
	for _, test := range []struct {
		golden, machine string
		host            Host
	}{
		{"bios.args", "m1", host},
		{"plain.args", "m1,pxe=plain,chipset=pc,nic=e1000,memory=2048,cpus=1,clock=2001-02-03T04:05:06", host},
		{"uefi.args", "m1,firmware=uefi,disk=8,disk=20,writes=10", kvm},
		{"media.args", "m1,boot=local,disk=8,image=/srv/a.raw,cd=/srv/a.iso,stick=/srv/b.iso", host},
		{"http.args", "m1,firmware=uefi,pxe=http", host},
	} {
		t.Run(test.golden, func(t *testing.T) {
			m, err := ParseMachine(test.machine)
			if err != nil {
				t.Fatal(err)
			}
			setDefault(&m.CPUs, test.host.cpus(1, 2))
			args := m.WithDefaults(0).Command(test.host, tapName(0))
			page := strings.ReplaceAll(strings.Join(args, " "), " -", "\n-") // an option a line
			golden(t, test.golden, page+"\n")
		})
	}
}

// TestDiskFromImage: a disk begins with an image, and is not made anew at the next power on.
func TestDiskFromImage(t *testing.T) {
	dir := t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	want := make([]byte, 3<<20+5)
	copy(want[2<<20:], "content")
	want[len(want)-1] = 1
	if err := os.WriteFile(image, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sparseOnce(disk, 1<<20, image); err == nil || !strings.Contains(err.Error(), "the disk 1048576") {
		t.Errorf("an image that is larger than the disk: %v", err)
	}
	for range 2 {
		if err := sparseOnce(disk, 4<<20, image); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(disk)
		if err != nil || len(got) != 4<<20 || !bytes.HasPrefix(got, want) {
			t.Errorf("the disk has %d bytes and begins as the image: %t, %v", len(got), bytes.HasPrefix(got, want), err)
		}
		if err := os.Remove(image); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

func TestNetworkCommands(t *testing.T) {
	golden(t, "network.ip", strings.Join(networkCommands("10.77.0.1/24", 2), "\n")+"\n")
}

func TestParseMachine(t *testing.T) {
	text := "m2,mac=52:54:00:00:00:09,firmware=bios,pxe=plain,boot=local,chipset=pc,nic=e1000,memory=2048,cpus=4,disk=8,disk=20,writes=10,image=/a.raw,cd=/a.iso,stick=/b.iso,clock=2001-02-03T04:05:06"
	want := Machine{Name: "m2", MAC: "52:54:00:00:00:09", Firmware: BIOS, PXE: PlainPXE, Boot: LocalBoot, Chipset: "pc", NIC: "e1000",
		MemoryMiB: 2048, CPUs: 4, DisksGiB: []int{8, 20}, DiskWrites: 10, Image: "/a.raw", CD: "/a.iso", Stick: "/b.iso", Clock: "2001-02-03T04:05:06"}
	got, err := ParseMachine(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.String() != text {
		t.Errorf("String: %s", got)
	}
	for text, complaint := range map[string]string{
		"m1,colour=red":   `unknown setting "colour"`,
		"m1,memory=large": "memory: want a whole number",
	} {
		if _, err := ParseMachine(text); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%s: %v, want %q", text, err, complaint)
		}
	}
}

func TestValidate(t *testing.T) {
	for complaint, c := range map[string]Config{
		"lab name":                   {Name: "../up"},
		"IPv4 address with prefix":   {Address: "10.77.0.1"},
		"want a command":             {Service: &Service{}},
		"want bios or uefi":          {Machines: []Machine{{Firmware: "efi"}}},
		"want card, plain or http":   {Machines: []Machine{{PXE: "none"}}},
		"want firmware uefi":         {Machines: []Machine{{PXE: HTTPBoot}}},
		"want network or local":      {Machines: []Machine{{Boot: "disk"}}},
		"want pxe card":              {Machines: []Machine{{Boot: LocalBoot, PXE: PlainPXE}}},
		"want a disk":                {Machines: []Machine{{Image: "/a.raw"}}},
		"want 1 or more":             {Machines: []Machine{{DiskWrites: -1}}},
		"want an absolute path":      {Machines: []Machine{{CD: "a.iso"}}},
		"without a comma":            {Machines: []Machine{{Stick: "/a,b.iso"}}},
		"want q35 or pc":             {Machines: []Machine{{Chipset: "microvm"}}},
		"want virtio or e1000":       {Machines: []Machine{{NIC: "rtl8139"}}},
		"want at least 64":           {Machines: []Machine{{MemoryMiB: 1}}},
		"want 1 to 64":               {Machines: []Machine{{CPUs: 65}}},
		"want a unicast address":     {Machines: []Machine{{MAC: "01:00:00:00:00:00"}}},
		"want a time such as":        {Machines: []Machine{{Clock: "2001-02-03"}}},
		"want at least 1":            {Machines: []Machine{{DisksGiB: []int{0}}}},
		"want lower-case letters":    {Machines: []Machine{{Name: "M 1"}}},
		"already taken by machine":   {Machines: []Machine{{Name: "a"}, {Name: "a"}}},
		`mac 52:54:00:77:00:02 is a`: {Machines: []Machine{{Name: "a", MAC: "52:54:00:77:00:02"}, {Name: "b"}}},
	} {
		if err := c.WithDefaults().Validate(); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%+v: %v, want %q", c, err, complaint)
		}
	}
	three := Config{Machines: make([]Machine, 3), Service: &Service{Command: []string{"true"}}}.WithDefaults()
	if err := three.Validate(); err != nil || three.Machines[2].Name != "m3" {
		t.Errorf("three machines by default: %+v, %v", three, err)
	}
}

func TestFactor(t *testing.T) {
	for took, want := range map[time.Duration]float64{
		probeReference: 1, 3 * probeReference: 3, time.Millisecond: 0.5, time.Hour: 20,
	} {
		if got := factorOf(took); got != want {
			t.Errorf("factorOf(%v) = %v, want %v", took, got, want)
		}
	}
	if _, err := Factor(t.Context(), "/bin/false", TCG); err == nil {
		t.Error("a QEMU that does not run the guest gave a factor")
	}
}

func TestClaim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if held(dir) {
		t.Error("held before it exists")
	}
	lock, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !held(dir) {
		t.Error("not held after claim")
	}
	if _, err := claim(dir); err == nil || !strings.Contains(err.Error(), "already up") {
		t.Errorf("second claim: %v", err)
	}
	stale := filepath.Join(dir, "m1.disk0")
	if err := sparseOnce(stale, 1<<20, ""); err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if held(dir) {
		t.Error("held after its holder closed it")
	}
	if lock, err = claim(dir); err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("what a dead holder left is still there: %v", err)
	}
}

func TestPlainWriter(t *testing.T) {
	const console = "\x1b[2J\x1b[01;01HSeaBIOS\r\n\x1b[0;1miPXE\x1b[0m done\n"
	for size := 1; size <= len(console); size++ {
		var out strings.Builder
		w := PlainWriter(&out)
		for rest := console; rest != ""; rest = rest[min(size, len(rest)):] {
			if _, err := w.Write([]byte(rest[:min(size, len(rest))])); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff("SeaBIOS\niPXE done\n", out.String()); diff != "" {
			t.Errorf("in pieces of %d: %s", size, diff)
		}
	}
}

func TestMonitorPassesEventsOver(t *testing.T) {
	m, theirs, err := newMonitor()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	defer m.close()
	if _, err := theirs.WriteString(`{"QMP":{}}
{"return":{}}
{"event":"RESET"}
{"return":{}}
{"error":{"class":"GenericError","desc":"no such device"}}
`); err != nil {
		t.Fatal(err)
	}
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	if err := m.execute("system_reset", nil); err != nil {
		t.Fatal(err)
	}
	if err := m.execute("set_link", nil); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Fatalf("an error from QEMU: %v", err)
	}
}

func TestProcessors(t *testing.T) {
	for text, want := range map[string]int{
		"QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u18)\n": 1,
		"QEMU emulator version 8.0.5\n":                                 1,
		"QEMU emulator version 8.1.0\n":                                 2,
		"QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n":         2,
		"something else": 1,
	} {
		if got := (Host{Accel: TCG, Version: parseVersion(text)}).cpus(1, 2); got != want {
			t.Errorf("%q: %d processors, want %d", text, got, want)
		}
	}
	for _, tt := range []struct {
		accel                 Accel
		machines, cores, want int
	}{{KVM, 4, 2, 2}, {TCG, 1, 1, 1}, {TCG, 2, 2, 1}, {TCG, 4, 2, 1}, {TCG, 4, 8, 2}, {TCG, 1, 64, 2}, {TCG, 0, 2, 2}} {
		if got := (Host{Accel: tt.accel, Version: safeSMP}).cpus(tt.machines, tt.cores); got != tt.want {
			t.Errorf("%s, %d machines on %d cores: %d processors each, want %d", tt.accel, tt.machines, tt.cores, got, tt.want)
		}
	}
}
