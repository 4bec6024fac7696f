package disklayout

// Slot names one of the two places of an operating system.
type Slot string

// The slots.
const (
	SlotA Slot = "a"
	SlotB Slot = "b"
)

// Other returns the other slot.
func (s Slot) Other() Slot {
	if s == SlotA {
		return SlotB
	}
	return SlotA
}

// Label is the name of the slot's partition.
func (s Slot) Label() string { return "slipway-" + string(s) }

// Files of the boot partition, as paths below it. Which of them exist depends
// on the machine's firmware; a raw image has both kinds.
const (
	// UEFI: systemd-boot at the path that firmware looks for on any disk, and
	// at its own.
	RemovableLoader = "/EFI/BOOT/BOOTX64.EFI"
	SystemdBoot     = "/EFI/systemd/systemd-bootx64.efi"
	LoaderConf      = "/loader/loader.conf"

	// BIOS: GRUB's program and the file in which it counts tries.
	GRUBConfig      = "/grub/grub.cfg"
	GRUBEnvironment = "/grub/grubenv"
)

// LoaderConfText is the content of LoaderConf: no menu, no editing of the
// command line, which carries the root hash.
const LoaderConfText = "timeout 0\neditor no\nauto-entries no\nauto-firmware no\n"

// UKI is the path of a slot's unified kernel image, with no tries left to
// count: it is known to be good.
func (s Slot) UKI() string { return "/EFI/Linux/slipway-" + string(s) + ".efi" }

// Kernel, Initramfs and Arguments are the paths of what GRUB starts.
func (s Slot) Kernel() string { return "/slipway/" + string(s) + "/kernel" }

// Initramfs is the path of the slot's initramfs.
func (s Slot) Initramfs() string { return "/slipway/" + string(s) + "/initramfs" }

// Arguments is the path of the slot's kernel command line.
func (s Slot) Arguments() string { return "/slipway/" + string(s) + "/arguments" }

// StagedLoader, StagedGRUBBoot and StagedGRUBCore are the paths of a slot's own
// loader: not what firmware starts, but what is put in the place of that once
// the slot has shown that it works.
func (s Slot) StagedLoader() string { return "/EFI/slipway/systemd-boot-" + string(s) + ".efi" }

// StagedGRUBBoot is the path of the slot's boot.img.
func (s Slot) StagedGRUBBoot() string { return "/slipway/" + string(s) + "/boot.img" }

// StagedGRUBCore is the path of the slot's core.img.
func (s Slot) StagedGRUBCore() string { return "/slipway/" + string(s) + "/core.img" }
