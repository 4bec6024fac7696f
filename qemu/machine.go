package qemu

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Firmware is what a machine runs first.
type Firmware string

// The two kinds of firmware: SeaBIOS and OVMF.
const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

// PXE names who speaks PXE on a BIOS machine.
type PXE string

const (
	// CardPXE is the ROM of QEMU's network card. It is an iPXE and says so in its first
	// DHCP packet (user class "iPXE"), so it never asks for a loader.
	CardPXE PXE = "card"
	// PlainPXE asks as an ordinary card does (vendor class PXEClient, no iPXE user class)
	// and runs the file it is told to fetch by TFTP. UEFI machines do that unless they are
	// told HTTPBoot: OVMF has a PXE client of its own.
	PlainPXE PXE = "plain"
	// HTTPBoot has a UEFI machine ask by UEFI HTTP boot and not by PXE.
	HTTPBoot PXE = "http"
)

// Boot names what a machine tries first.
type Boot string

const (
	// NetworkBoot tries the network, then the disks, the CD and the stick. BIOS: the stick first.
	NetworkBoot Boot = "network"
	// LocalBoot leaves the network out, as a firmware does whose network boot is off.
	LocalBoot Boot = "local"
)

// Machine describes one virtual machine. Zero fields take the defaults of WithDefaults.
type Machine struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac"`       // lower case, with colons
	Firmware  Firmware `json:"firmware"`  // default BIOS
	PXE       PXE      `json:"pxe"`       // default CardPXE; PlainPXE: BIOS only, HTTPBoot: UEFI only
	Boot      Boot     `json:"boot"`      // default NetworkBoot
	Chipset   string   `json:"chipset"`   // "q35" (default) or "pc"
	NIC       string   `json:"nic"`       // "virtio" (default) or "e1000"
	MemoryMiB int      `json:"memoryMiB"` // MiB, default 3072
	CPUs      int      `json:"cpus"`      // default by how guests run: see Host.cpus
	DisksGiB  []int    `json:"disksGiB,omitempty"`
	// DiskWrites is how many writes a second each disk takes; 0: as many as it can.
	DiskWrites int `json:"diskWrites,omitempty"`
	// Image is a file whose content the first disk has at first; CD and Stick are files that
	// are plugged in as a CD and as a USB stick, and are not written to. All are absolute paths.
	Image string `json:"image,omitempty"`
	CD    string `json:"cd,omitempty"`
	Stick string `json:"stick,omitempty"`
	// Clock is what the clock says at power-on, in UTC and in the form of clockForm; empty: the time it is.
	Clock string `json:"clock,omitempty"`
}

// clockForm is how QEMU reads a time.
const clockForm = "2006-01-02T15:04:05"

// WithDefaults returns m with its zero fields filled in, but for CPUs: the host decides
// them. The MAC address is made from index, the machine's place in its lab.
func (m Machine) WithDefaults(index int) Machine {
	setDefault(&m.Name, fmt.Sprintf("m%d", index+1))
	setDefault(&m.MAC, fmt.Sprintf("52:54:00:77:00:%02x", index+1))
	setDefault(&m.Firmware, BIOS)
	setDefault(&m.PXE, CardPXE)
	setDefault(&m.Boot, NetworkBoot)
	setDefault(&m.Chipset, "q35")
	setDefault(&m.NIC, "virtio")
	setDefault(&m.MemoryMiB, 3072)
	return m
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

var machineName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Validate reports everything that is wrong with a machine that has its defaults.
func (m Machine) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("machine %q: "+format, append([]any{m.Name}, args...)...))
		}
	}
	check(machineName.MatchString(m.Name), "name: want lower-case letters, digits and dashes, at most 32")
	mac, err := net.ParseMAC(m.MAC)
	check(err == nil && len(mac) == 6 && mac[0]&1 == 0, "mac %q: want a unicast address such as 52:54:00:77:00:01", m.MAC)
	check(m.Firmware == BIOS || m.Firmware == UEFI, "firmware %q: want bios or uefi", m.Firmware)
	check(m.PXE == CardPXE || m.PXE == PlainPXE || m.PXE == HTTPBoot, "pxe %q: want card, plain or http", m.PXE)
	check(m.PXE != HTTPBoot || m.Firmware == UEFI, "pxe http: want firmware uefi")
	check(m.Boot == NetworkBoot || m.Boot == LocalBoot, "boot %q: want network or local", m.Boot)
	check(m.Boot == NetworkBoot || !m.needsCable(), "boot local: want pxe card")
	check(m.DiskWrites >= 0, "writes %d a second: want 1 or more, or 0 for no limit", m.DiskWrites)
	check(m.DiskWrites == 0 || len(m.DisksGiB) > 0, "writes: want a disk")
	check(m.Image == "" || len(m.DisksGiB) > 0, "image: want a disk")
	for _, path := range []string{m.Image, m.CD, m.Stick} {
		check(path == "" || filepath.IsAbs(path) && !strings.Contains(path, ","), "file %q: want an absolute path without a comma", path)
	}
	check(m.Chipset == "q35" || m.Chipset == "pc", "chipset %q: want q35 or pc", m.Chipset)
	check(m.NIC == "virtio" || m.NIC == "e1000", "nic %q: want virtio or e1000", m.NIC)
	check(m.MemoryMiB >= 64, "memory %d MiB: want at least 64", m.MemoryMiB)
	check(m.CPUs >= 0 && m.CPUs <= 64, "cpus %d: want 1 to 64, or 0 for the default", m.CPUs)
	_, err = time.Parse(clockForm, m.Clock)
	check(m.Clock == "" || err == nil, "clock %q: want a time such as 2001-02-03T04:05:06", m.Clock)
	for _, gib := range m.DisksGiB {
		check(gib >= 1, "disk %d GiB: want at least 1", gib)
	}
	return errors.Join(errs...)
}

// ParseMachine reads the form people write on a command line: a name, then settings.
//
//	m1,firmware=uefi,pxe=http,boot=local,nic=e1000,chipset=pc,memory=2048,cpus=2,disk=8,disk=20,writes=10,mac=52:54:00:00:00:01
//	m2,disk=8,image=/srv/slipway.raw,cd=/srv/slipway.iso,stick=/srv/slipway.iso,clock=2001-02-03T04:05:06
//
// Memory is in MiB, disks in GiB, writes are for a second. Fields that are not named stay zero.
func ParseMachine(text string) (Machine, error) {
	name, rest, _ := strings.Cut(text, ",")
	m := Machine{Name: name}
	for setting := range strings.SplitSeq(rest, ",") {
		if setting == "" {
			continue
		}
		key, value, _ := strings.Cut(setting, "=")
		if err := m.set(key, value); err != nil {
			return Machine{}, fmt.Errorf("read machine %q: %w", text, err)
		}
	}
	return m, nil
}

// String is the form that ParseMachine reads.
func (m Machine) String() string {
	var b strings.Builder
	b.WriteString(m.Name)
	put := func(key string, value any, isSet bool) {
		if isSet {
			fmt.Fprintf(&b, ",%s=%v", key, value)
		}
	}
	put("mac", m.MAC, m.MAC != "")
	put("firmware", m.Firmware, m.Firmware != "")
	put("pxe", m.PXE, m.PXE != "")
	put("boot", m.Boot, m.Boot != "")
	put("chipset", m.Chipset, m.Chipset != "")
	put("nic", m.NIC, m.NIC != "")
	put("memory", m.MemoryMiB, m.MemoryMiB != 0)
	put("cpus", m.CPUs, m.CPUs != 0)
	for _, gib := range m.DisksGiB {
		put("disk", gib, true)
	}
	put("writes", m.DiskWrites, m.DiskWrites != 0)
	put("image", m.Image, m.Image != "")
	put("cd", m.CD, m.CD != "")
	put("stick", m.Stick, m.Stick != "")
	put("clock", m.Clock, m.Clock != "")
	return b.String()
}

func (m *Machine) set(key, value string) (err error) {
	switch key {
	case "mac":
		m.MAC = strings.ToLower(strings.ReplaceAll(value, "-", ":"))
	case "firmware":
		m.Firmware = Firmware(value)
	case "pxe":
		m.PXE = PXE(value)
	case "boot":
		m.Boot = Boot(value)
	case "image":
		m.Image = value
	case "cd":
		m.CD = value
	case "stick":
		m.Stick = value
	case "clock":
		m.Clock = value
	case "chipset":
		m.Chipset = value
	case "nic":
		m.NIC = value
	case "memory":
		m.MemoryMiB, err = strconv.Atoi(value)
	case "cpus":
		m.CPUs, err = strconv.Atoi(value)
	case "writes":
		m.DiskWrites, err = strconv.Atoi(value)
	case "disk":
		var gib int
		gib, err = strconv.Atoi(value)
		m.DisksGiB = append(m.DisksGiB, gib)
	default:
		return fmt.Errorf("unknown setting %q: want mac, firmware, pxe, boot, chipset, nic, memory, cpus, disk, writes, image, cd, stick or clock", key)
	}
	if err != nil {
		return fmt.Errorf("%s: want a whole number: %w", key, err)
	}
	return nil
}

// uuid is the machine's SMBIOS UUID: the same for the same MAC address, version 8 (RFC 9562).
func (m Machine) uuid() string {
	b := sha256.Sum256([]byte("slipway lab machine " + m.MAC))
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
