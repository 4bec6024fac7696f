// Package enroll holds what a machine and the boot service tell each other
// before there is a cluster: the machine's facts, its phases, and the words by
// which a person compares both ends. Pure data and pure functions.
package enroll

// Phase is where a machine is in its life.
type Phase string

// The phases, in the order a machine goes through them.
const (
	Discovered Phase = "discovered" // its firmware has asked for an address
	Booting    Phase = "booting"    // it fetches the loader, kernel and initramfs
	Enrolling  Phase = "enrolling"  // it has shown its key and waits for approval
	Approved   Phase = "approved"   // it has a certificate and waits for a cluster
	Assigned   Phase = "assigned"   // its config is rendered, or delivered
	Installing Phase = "installing" // it runs from RAM and writes itself to a disk
	Joining    Phase = "joining"    // its services are starting
	Ready      Phase = "ready"      // its Node is Ready
	Failed     Phase = "failed"     // it said why; see the timeline
)

// The most that a machine tells of one kind. One with more tells the first of them.
const (
	MaxNICs  = 64
	MaxDisks = 256
)

// Facts are what a machine knows of its hardware. It tells them when it enrols
// and, as drivers are loaded and disks come and go, whenever they have changed.
type Facts struct {
	UUID     string `json:"uuid,omitempty"` // SMBIOS system UUID
	Vendor   string `json:"vendor,omitempty"`
	Product  string `json:"product,omitempty"`
	Serial   string `json:"serial,omitempty"`
	Arch     string `json:"arch"`     // GOARCH
	Firmware string `json:"firmware"` // "bios" or "uefi"
	CPUs     int    `json:"cpus"`
	Memory   uint64 `json:"memory"` // bytes
	NICs     []NIC  `json:"nics"`
	Disks    []Disk `json:"disks"`
}

// NIC is a network interface with a device behind it.
type NIC struct {
	Name   string `json:"name"`
	MAC    string `json:"mac"`
	Driver string `json:"driver,omitempty"`
	Up     bool   `json:"up"` // it has a carrier
}

// Disk is a whole block device.
type Disk struct {
	Name       string `json:"name"`
	Size       uint64 `json:"size"` // bytes
	Model      string `json:"model,omitempty"`
	Serial     string `json:"serial,omitempty"`
	WWN        string `json:"wwn,omitempty"`       // the device's own name, the same in every machine
	Type       string `json:"type,omitempty"`      // nvme, ssd, hdd, virtual
	Removable  bool   `json:"removable,omitempty"` // or on USB
	Rotational bool   `json:"rotational"`
}
