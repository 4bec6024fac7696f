package qemu

import (
	"fmt"
	"strconv"
)

// Host is what this computer offers to run machines with.
type Host struct {
	QEMU     string `json:"qemu"`               // path of qemu-system-x86_64
	Version  [2]int `json:"version"`            // its release, major and minor
	Accel    Accel  `json:"accel"`              // how guests run
	OVMFCode string `json:"ovmfCode,omitempty"` // UEFI firmware, read only
	OVMFVars string `json:"ovmfVars,omitempty"` // template of its variables
	IPXE     string `json:"ipxe,omitempty"`     // iPXE in the shape of a Linux kernel, for PlainPXE
}

// The descriptors that QEMU inherits are ends of socket pairs: there is no path to clash,
// and no one else can connect.
const (
	qmpFD         = 3 // its control connection
	cableSentFD   = 4 // frames to the cable of a PlainPXE machine
	cablePassedFD = 5 // frames from it
)

// Command is QEMU's argument list for m, without the program's name. Files are named
// relative to the lab's directory, QEMU's working directory. tap is m's network device.
func (m Machine) Command(h Host, tap string) []string {
	args := []string{
		"-name", m.Name, "-no-user-config", "-nodefaults", "-display", "none",
		"-machine", m.Chipset + ",graphics=off",
		"-accel", h.Accel.option(), "-cpu", h.Accel.cpu(),
		"-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MemoryMiB),
		"-uuid", m.uuid(),
		"-smbios", "type=1,manufacturer=Slipway,product=Lab,serial=" + m.Name,
		// Only what has a boot index is booted, and a BIOS that found nothing tries again.
		"-boot", "strict=on,reboot-timeout=5000",
		"-chardev", "file,id=console,append=on,path=" + m.consoleFile(), "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", qmpFD), "-mon", "chardev=qmp,mode=control",
		"-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng",
		"-device", "i6300esb", "-action", "watchdog=reset",
	}
	if m.Clock != "" {
		args = append(args, "-rtc", "base="+m.Clock)
	}
	args = append(args, m.firmwareArgs(h)...)
	args = append(args, m.networkArgs(tap)...)
	args = append(args, m.diskArgs()...)
	return append(args, m.mediaArgs()...)
}

func (m Machine) firmwareArgs(h Host) []string {
	switch {
	case m.Firmware == UEFI:
		args := []string{
			"-drive", "if=pflash,format=raw,readonly=on,file=" + h.OVMFCode,
			"-drive", "if=pflash,format=raw,file=" + m.varsFile(),
		}
		if m.PXE == HTTPBoot { // the firmware has no entries for PXE then
			args = append(args, "-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n")
		}
		return args
	case m.needsCable():
		return []string{"-kernel", h.IPXE, "-initrd", plainScriptFile}
	}
	return nil
}

func (m Machine) networkArgs(tap string) []string {
	device := "virtio-net-pci"
	if m.NIC == "e1000" {
		device = "e1000"
	}
	device += ",netdev=net0,mac=" + m.MAC
	if m.Boot != LocalBoot {
		device += ",bootindex=1"
	}
	if m.Firmware == UEFI || m.needsCable() || m.Boot == LocalBoot {
		device += ",romfile=" // the card's iPXE must not speak first
	}
	netdev := "tap,id=net0,script=no,downscript=no,ifname=" + tap
	if !m.needsCable() {
		return []string{"-netdev", netdev, "-device", device}
	}
	return []string{
		"-netdev", netdev + ",vnet_hdr=off", "-device", device, // frames on the cable are bare
		"-chardev", fmt.Sprintf("socket,id=sent,fd=%d", cableSentFD),
		"-chardev", fmt.Sprintf("socket,id=passed,fd=%d", cablePassedFD),
		"-object", "filter-redirector,id=cable,netdev=net0,queue=rx,outdev=sent,indev=passed",
	}
}

// needsCable says whether what m sends passes through a cable.
func (m Machine) needsCable() bool { return m.Firmware == BIOS && m.PXE == PlainPXE }

// diskArgs ignores flushes: the lab cuts the power of machines, never of the computer.
func (m Machine) diskArgs() []string {
	var args []string
	limit := ""
	if m.DiskWrites > 0 {
		limit = fmt.Sprintf("throttling.iops-write=%d,", m.DiskWrites)
	}
	for i := range m.DisksGiB {
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,cache=unsafe,discard=unmap,%sfile=%s", i, limit, m.diskFile(i)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=%s-disk%d,bootindex=%d", i, m.Name, i, i+2))
	}
	return args
}

// The places of media in the boot order, behind all disks. But SeaBIOS tries one hard disk
// only, and a stick is one to it: it comes before the others then.
const (
	firstIndex = 0
	cdIndex    = 90
	stickIndex = 91
)

// mediaArgs plugs in what is neither written to nor kept.
func (m Machine) mediaArgs() []string {
	index := stickIndex
	if m.Firmware != UEFI {
		index = firstIndex
	}
	var args []string
	if m.CD != "" {
		args = append(args, "-drive", "if=none,id=cd,media=cdrom,format=raw,readonly=on,file="+m.CD,
			"-device", fmt.Sprintf("ide-cd,drive=cd,bootindex=%d", cdIndex))
	}
	if m.Stick != "" {
		args = append(args, "-drive", "if=none,id=stick,format=raw,readonly=on,file="+m.Stick,
			"-device", "qemu-xhci", "-device", fmt.Sprintf("usb-storage,drive=stick,removable=on,bootindex=%d", index))
	}
	return args
}

func (m Machine) consoleFile() string   { return m.Name + ".console" }
func (m Machine) logFile() string       { return m.Name + ".qemu.log" }
func (m Machine) varsFile() string      { return m.Name + ".vars" }
func (m Machine) diskFile(i int) string { return fmt.Sprintf("%s.disk%d", m.Name, i) }
