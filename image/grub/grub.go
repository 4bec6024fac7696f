// Package grub makes GRUB's images: for machines with a BIOS what boots their
// disks and CDs, and programs that the network hands out to machines that are to
// go on to their disk, for a BIOS and for UEFI. The programs that make them are the host's:
// grub-mkimage of Debian's grub-common, and the modules of grub-pc-bin and
// grub-efi-amd64-bin.
package grub

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"slipway/configs/disklayout"
)

// Where grub-pc-bin and grub-efi-amd64-bin keep GRUB's modules.
const (
	Modules     = "/usr/lib/grub/i386-pc"
	ModulesUEFI = "/usr/lib/grub/x86_64-efi"
)

const (
	sector = 512
	// bootPartition is where the partition for core.img begins on every disk:
	// slipway-bios of configs/disklayout, in sectors.
	bootPartition = 1 << 20 / sector
	maxCore       = 1 << 20
	// BootCode is how much of boot.img goes to the first sector of a disk; the
	// partition table follows.
	BootCode = 440

	// Offsets that grub-bios-setup patches (GRUB's include/grub/i386/pc/boot.h).
	coreSector = 0x5c // 64 bits: where boot.img finds the first sector of core.img
	bootDrive  = 0x64 // 0xff: the one that the BIOS says it booted
	driveCheck = 0x66 // a jump that only floppies need
	blockList  = 0x1f4
)

// disk and cd are what GRUB needs to know before it can read its configuration.
var (
	common = []string{"normal", "configfile", "test", "echo", "linux", "serial", "terminal", "sleep", "reboot", "halt",
		"search", "search_label", "probe", "biosdisk", "fat", "part_gpt", "loadenv"}
	onCD      = []string{"iso9660", "part_msdos", "loopback"}
	onNetwork = []string{"minicmd", "boot", "chain", "search_label", "fat", "part_gpt"}
	onBIOS    = []string{"biosdisk", "regexp"}
)

// Disk returns boot.img and core.img for the disk of package disklayout. They
// know where they lie: the first BootCode bytes of boot.img go to the start of
// the disk, core.img to the start of the first partition, both as they are.
// GRUB reads /grub/grub.cfg of the second partition of the disk it came from.
func Disk(ctx context.Context) (boot, core []byte, err error) {
	boot, err = os.ReadFile(filepath.Join(Modules, "boot.img"))
	if err != nil {
		return nil, nil, fmt.Errorf("read GRUB (install grub-pc-bin): %w", err)
	}
	core, err = mkimage(ctx, Modules, "i386-pc", "(,gpt2)/grub", common)
	if err != nil {
		return nil, nil, err
	}
	if err := place(boot, core, bootPartition); err != nil {
		return nil, nil, fmt.Errorf("place GRUB: %w", err)
	}
	return boot, core, nil
}

// CD returns the boot image of an El Torito CD whose configuration is
// /boot/grub/grub.cfg, and the code for the first sector should the same bytes
// be written to a USB stick.
func CD(ctx context.Context) (image, hybrid []byte, err error) {
	hybrid, err = os.ReadFile(filepath.Join(Modules, "boot_hybrid.img"))
	if err != nil {
		return nil, nil, fmt.Errorf("read GRUB (install grub-pc-bin): %w", err)
	}
	image, err = mkimage(ctx, Modules, "i386-pc-eltorito", "/boot/grub", append(onCD, common...))
	return image, hybrid, err
}

// What the programs do that lead to the disk. Each line is carried out whatever became
// of the one before; the last is reached if the disk's loader ended, or if there is none.
const (
	toDisk = `search.fs_label ` + disklayout.BootVolume + ` root
chainloader ` + disklayout.RemovableLoader + `
boot
exit
`
	// Of hd1,gpt2 the disk is hd1; its first sector is what a BIOS would start.
	toDiskBIOS = `search.fs_label ` + disklayout.BootVolume + ` root
regexp --set=1:disk '^([^,]+),' $root
chainloader ($disk)+1
boot
exit
`
)

// ToDisk returns a UEFI program that starts the loader on the disk that Slipway
// is installed on, as if the firmware had done it. It ends if there is none.
//
// It is what makes a machine boot from its disk whose firmware has more network
// entries before that: each of them (IPv4 and IPv6, PXE and HTTP, of each card)
// waits a minute for an answer.
func ToDisk(ctx context.Context) ([]byte, error) {
	return onward(ctx, ModulesUEFI, "x86_64-efi", toDisk, onNetwork)
}

// ToDiskBIOS returns the same for a BIOS, in the form that a network card starts:
// the disk need not be the first one that the BIOS knows. If there is none, the BIOS
// tries its next boot device.
func ToDiskBIOS(ctx context.Context) ([]byte, error) {
	return onward(ctx, Modules, "i386-pc-pxe", toDiskBIOS, slices.Concat(onNetwork, onBIOS))
}

// onward makes a program with its configuration in it.
func onward(ctx context.Context, modules, format, does string, wanted []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "slipway-grub-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	config := filepath.Join(dir, "grub.cfg")
	if err := os.WriteFile(config, []byte(does), 0o600); err != nil {
		return nil, err
	}
	return mkimage(ctx, modules, format, "", wanted, "--config", config)
}

func mkimage(ctx context.Context, dir, format, prefix string, modules []string, more ...string) ([]byte, error) {
	temporary, err := os.MkdirTemp("", "slipway-grub-*") // grub-mkimage cannot write to a pipe
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temporary)
	out := filepath.Join(temporary, "core.img")
	args := slices.Concat([]string{"--directory", dir, "--format", format, "--prefix", prefix, "--output", out}, more, modules)
	if text, err := exec.CommandContext(ctx, "grub-mkimage", args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("run grub-mkimage (install grub-common, grub-pc-bin and grub-efi-amd64-bin): %w\n%s", err, bytes.TrimSpace(text))
	}
	return os.ReadFile(out)
}

// place does to the images in memory what grub-bios-setup does to a disk.
func place(boot, core []byte, at uint64) error {
	if len(boot) != sector || len(core) <= sector || len(core) > maxCore {
		return errors.New("boot.img or core.img has a size that GRUB's have not")
	}
	le := binary.LittleEndian
	le.PutUint64(boot[coreSector:], at)
	boot[bootDrive] = 0xff
	le.PutUint16(boot[driveCheck:], 0x9090)
	le.PutUint64(core[blockList:], at+1) // the first sector of core.img loads the others; how many, it knows
	return nil
}
