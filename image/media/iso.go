package media

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"slipway/configs/disklayout"
)

// isoVolume is not the label of installed disks: a loader must not take one
// for the other.
const isoVolume = "SLIPWAY_ISO"

// CDLoader is GRUB for a CD: the El Torito boot image, and the first sector for
// when the image is written to a stick.
type CDLoader struct{ Image, Hybrid []byte }

// ISO writes a CD image that also works on a stick, and boots both firmwares
// into what the network boots: kernel, initramfs with the root image, command
// line. Both find the files in one FAT image, which is the CD's partition for
// UEFI. It runs xorriso.
func ISO(ctx context.Context, out, arguments string, grub CDLoader, from Artifacts) error {
	dir, err := os.MkdirTemp(filepath.Dir(out), ".iso-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tree := filepath.Join(dir, "tree")
	for name, data := range map[string][]byte{
		"tree/boot/grub/bios.img": grub.Image,
		"tree/boot/grub/grub.cfg": []byte(cdConfig(arguments)),
		"hybrid.img":              grub.Hybrid,
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	if err := writeBoot(filepath.Join(tree, "boot.img"), arguments, from); err != nil {
		return fmt.Errorf("write the CD's boot image: %w", err)
	}
	cmd := exec.CommandContext(ctx, "xorriso", "-as", "mkisofs", "-quiet", "-V", isoVolume, "-r",
		"-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
		"--grub2-boot-info", "--grub2-mbr", filepath.Join(dir, "hybrid.img"), "--protective-msdos-label",
		"--efi-boot", "boot.img", "-efi-boot-part", "--efi-boot-image", "--set_all_file_dates", "1970010100000100", "-o", out, tree)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "SOURCE_DATE_EPOCH=1"} // one time for all
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run xorriso (install it): %w\n%s", err, bytes.TrimSpace(text))
	}
	return nil
}

// cdConfig is grub.cfg of a CD.
func cdConfig(arguments string) string {
	return `serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
loopback boot ($root)/boot.img
echo "Slipway: loading, which takes a while"
linux (boot)/kernel ` + arguments + `
initrd (boot)/initramfs
boot
`
}

// entry is systemd-boot's (UAPI group, Boot Loader Specification, type 1).
func entry(arguments string) string {
	return "title Slipway\nlinux /kernel\ninitrd /initramfs\noptions " + arguments + "\n"
}

// content is one file of the FAT image.
type content struct {
	name string
	data []byte
}

// contents are its files, in the order in which they are written.
func contents(arguments string, from Artifacts) ([]content, error) {
	list := []content{{disklayout.LoaderConf, []byte("timeout 0\n")}, {"/loader/entries/slipway.conf", []byte(entry(arguments))}}
	for _, f := range []struct{ name, artifact string }{
		{disklayout.RemovableLoader, "loaders/systemd-bootx64.efi"}, {"/kernel", "kernel"}, {"/initramfs", "initramfs"},
	} {
		data, err := from(f.artifact)
		if err != nil {
			return nil, err
		}
		list = append(list, content{f.name, data})
	}
	return list, nil
}

// writeBoot writes the FAT image.
func writeBoot(name, arguments string, from Artifacts) error {
	list, err := contents(arguments, from)
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	size := room(list)
	if err := f.Truncate(size); err != nil {
		return err
	}
	v, err := makeFAT(f, 0, size, isoVolume)
	if err != nil {
		return err
	}
	for _, c := range list {
		if err := v.Create(c.name, int64(len(c.data)), bytes.NewReader(c.data)); err != nil {
			return fmt.Errorf("write %s: %w", c.name, err)
		}
	}
	return f.Close()
}

// room is what files need as a FAT32 file system: the data and a twentieth for
// tables, and what the smallest that firmware takes for FAT32 has at least.
func room(list []content) (size int64) {
	for _, c := range list {
		size += int64(len(c.data))
	}
	return (size+size/20)/disklayout.MiB*disklayout.MiB + 40*disklayout.MiB
}
