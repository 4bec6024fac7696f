package sysdisk

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
	"os"
	"strings"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/lifecycle"
	"slipway/nodeinit/slot"
	"slipway/nodeinit/slot/fat"
)

// bootPartition is the boot partition, open. Nothing else on the machine uses
// it: it is never mounted.
type bootPartition struct {
	volume          *fat.Volume
	partition, disk *os.File
}

func openBoot(d disk.Disk, flag int) (*bootPartition, error) {
	p, ok := d.Partition(disklayout.BootLabel)
	if !ok {
		return nil, fmt.Errorf("%s has no boot partition", d.Path)
	}
	b := &bootPartition{}
	var errs [2]error
	b.partition, errs[0] = os.OpenFile(p.Path, flag, 0)
	b.disk, errs[1] = os.OpenFile(d.Path, flag, 0)
	if err := errors.Join(errs[:]...); err != nil {
		b.close()
		return nil, fmt.Errorf("open the boot partition: %w", err)
	}
	var err error
	if b.volume, err = fat.Open(b.partition); err != nil {
		b.close()
		return nil, fmt.Errorf("open the boot partition %s: %w", p.Path, err)
	}
	return b, nil
}

func (b *bootPartition) close() {
	b.partition.Close()
	b.disk.Close()
}

// loader is that of the firmware which the machine booted with.
func (b *bootPartition) loader() slot.Loader {
	if isUEFI() {
		return slot.SystemdBoot{Boot: b.volume}
	}
	return slot.GRUB{Boot: b.volume, Disk: b.disk}
}

func isUEFI() bool {
	_, err := os.Stat("/sys/firmware/efi")
	return err == nil
}

// loader opens the boot partition of the disk that the machine booted from.
func (d *Disk) loader() (slot.Loader, error) {
	if d.boot == nil {
		dev, err := d.find()
		if err != nil {
			return nil, err
		}
		if d.boot, err = openBoot(dev, os.O_RDWR); err != nil {
			return nil, err
		}
	}
	return d.boot.loader(), nil
}

// Slots is what the loader of a disk, by the kernel's name of it, says. It is for
// PID 1, beside an agent that may have the boot partition open for writing: it
// only reads, and keeps nothing open.
func Slots(name string) (slot.Slots, error) {
	slots, err := readSlots(name)
	if err != nil {
		return slots, fmt.Errorf("read what the loader says: %w", err)
	}
	return slots, nil
}

func readSlots(name string) (slot.Slots, error) {
	dev, err := (&Disk{Name: name}).find()
	if err != nil {
		return slot.Slots{}, err
	}
	boot, err := openBoot(dev, os.O_RDONLY)
	if err != nil {
		return slot.Slots{}, err
	}
	defer boot.close()
	return boot.loader().Read()
}

// Kernel is what the loader starts for a slot. Added to its arguments are the slot's
// name and the GUID of the boot partition, as GRUB does it.
func (d *Disk) Kernel(n disklayout.Slot) (lifecycle.Kernel, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kernel, err := d.kernel(n)
	if err != nil {
		return kernel, fmt.Errorf("read the kernel of slot %s: %w", n, err)
	}
	dev, err := d.find()
	if err != nil {
		return kernel, err
	}
	boot, err := disk.BootGUID(dev)
	if err != nil {
		return kernel, err
	}
	kernel.Arguments += fmt.Sprintf(" slipway.slot=%s slipway.boot=%s", n, boot)
	return kernel, nil
}

func (d *Disk) kernel(n disklayout.Slot) (lifecycle.Kernel, error) {
	if _, err := d.loader(); err != nil {
		return lifecycle.Kernel{}, err
	}
	if isUEFI() {
		return unified(d.boot.volume, n)
	}
	return separate(d.boot.volume, n)
}

// separate is a kernel as GRUB has it: in files.
func separate(boot slot.Files, n disklayout.Slot) (k lifecycle.Kernel, err error) {
	var arguments []byte
	for _, file := range []struct {
		name string
		to   *[]byte
	}{{n.Kernel(), &k.Image}, {n.Initramfs(), &k.Initramfs}, {n.Arguments(), &arguments}} {
		if *file.to, err = boot.ReadFile(file.name); err != nil {
			return k, err
		}
	}
	settings, err := disklayout.ReadEnvironmentBlock(arguments)
	k.Arguments = settings["arguments"]
	return k, err
}

// unified is a kernel as systemd-boot has it: in the sections of one program
// (uapi-group.org/specifications, Unified Kernel Image).
func unified(boot slot.Files, n disklayout.Slot) (k lifecycle.Kernel, err error) {
	name, err := kernelImage(boot, n)
	if err != nil {
		return k, err
	}
	data, err := boot.ReadFile(name)
	if err != nil {
		return k, err
	}
	program, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return k, fmt.Errorf("%s: %w", name, err)
	}
	var arguments []byte
	for _, section := range []struct {
		name string
		to   *[]byte
	}{{".linux", &k.Image}, {".initrd", &k.Initramfs}, {".cmdline", &arguments}} {
		s := program.Section(section.name)
		if s == nil {
			return k, fmt.Errorf("%s has no section %s", name, section.name)
		}
		content, err := s.Data()
		if err != nil {
			return k, fmt.Errorf("%s: section %s: %w", name, section.name, err)
		}
		*section.to = content[:min(len(content), int(s.VirtualSize))]
	}
	k.Arguments = strings.Trim(string(arguments), "\x00\n ")
	return k, nil
}

// kernelImage is the name of a slot's unified kernel image, whatever is said of
// its tries.
func kernelImage(boot slot.Files, n disklayout.Slot) (string, error) {
	dir, base := split(n.UKI())
	names, err := boot.List(dir)
	if err != nil {
		return "", err
	}
	stem := strings.TrimSuffix(base, ".efi")
	for _, name := range names {
		lower := strings.ToLower(name)
		if lower == base || strings.HasPrefix(lower, stem+"+") && strings.HasSuffix(lower, ".efi") {
			return dir + "/" + name, nil
		}
	}
	return "", fmt.Errorf("%s has no image of slot %s", dir, n)
}

func split(name string) (dir, base string) {
	at := strings.LastIndexByte(name, '/')
	return name[:at], name[at+1:]
}
