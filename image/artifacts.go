package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"slipway/configs/disklayout"
	"slipway/image/debian"
	"slipway/image/grub"
	"slipway/image/recipe"
	"slipway/image/uki"
	"slipway/image/verity"
)

// Names of the artifacts. What a machine boots from the network into RAM:
const (
	Kernel    = "kernel"
	Initramfs = "initramfs" // with the root image
)

// What an installed machine boots, and what its disk is made of:
const (
	RootImage     = "root.img"       // for a slot: the root image with its hash tree
	InitramfsDisk = "initramfs.disk" // without the root image
	ArgumentsDisk = "arguments.disk" // kernel command line, one line of text
	UKI           = "uki.efi"        // kernel, initramfs.disk and command line in one, for UEFI
	SystemdBoot   = "loaders/systemd-bootx64.efi"
	GRUBBoot      = "loaders/grub/boot.img" // the first 440 bytes of a disk
	GRUBCore      = "loaders/grub/core.img" // the disk's first partition
	GRUBToDisk    = "loaders/grub/disk.efi" // sent to a UEFI machine that is to boot from its disk
	GRUBToDiskPXE = "loaders/grub/disk.pxe" // to one with a BIOS
)

// write puts the artifacts into the output directory.
func (b *Builder) write(ctx context.Context, r *recipe.Recipe, lock debian.Lock, programs programs, root *rootImage) (*Manifest, error) {
	b.Log.Info("writing artifacts", "phase", "artifacts", "dir", b.Out)
	m := &Manifest{Version: b.Version, Committed: b.Committed.UTC(), Architecture: r.Debian.Architecture, Kernel: r.Kernel.Release(), Kubernetes: kubernetesVersion(r), Arguments: r.Kernel.Arguments,
		Profile: b.Profile, Packages: packageList(r, lock)}
	out := artifacts{dir: b.Out}
	out.copy(Kernel, root.path("kernel"), 0o644)
	out.create(Initramfs, func(w io.Writer) error { return writeInitramfs(w, programs[r.Init.Import], root, b.Profile) })
	for _, l := range r.Loaders {
		name := "loaders/" + filepath.Base(l.File)
		out.copy(name, root.path(name), 0o644)
	}
	for _, p := range r.Payload.Programs {
		if len(p.Links) > 0 {
			out.copy("bin/"+filepath.Base(p.Path), programs[p.Import], 0o755)
		}
	}
	b.writeForDisk(ctx, &out, programs[r.Init.Import], root, m)
	out.sign(ctx, b.Sign)
	b.media(ctx, &out, m)
	if out.err != nil {
		return nil, out.err
	}
	m.Artifacts = out.list
	return m, m.write(b.Out)
}

// writeForDisk writes what an installed machine has that one in RAM has not.
func (b *Builder) writeForDisk(ctx context.Context, out *artifacts, init string, root *rootImage, m *Manifest) {
	out.create(InitramfsDisk, func(w io.Writer) error { return writeEarlyInitramfs(w, init, root.path(earlyDisk), b.Profile) })
	out.file(RootImage, func(path string) (err error) {
		m.Root, err = verity.Build(root.path("root.squashfs"), path, systemHash(out.list, m.Arguments))
		return errors.Join(err, fitsSlot(path))
	})
	out.bytes(ArgumentsDisk, []byte(m.DiskArguments()+"\n"))
	if out.err != nil {
		return
	}
	unified, err := b.unified(root, m)
	if err != nil {
		out.err = fmt.Errorf("make %s: %w", UKI, err)
		return
	}
	out.bytes(UKI, unified)
	boot, core, err := grub.Disk(ctx)
	onUEFI, failed := grub.ToDisk(ctx)
	onBIOS, alsoFailed := grub.ToDiskBIOS(ctx)
	if out.err = errors.Join(out.err, err, failed, alsoFailed); out.err != nil {
		return
	}
	out.bytes(GRUBBoot, boot)
	out.bytes(GRUBCore, core)
	out.bytes(GRUBToDisk, onUEFI)
	out.bytes(GRUBToDiskPXE, onBIOS)
}

func fitsSlot(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Size() > disklayout.SlotBytes {
		err = fmt.Errorf("the root image with its hash tree has %d bytes, a slot %d", info.Size(), disklayout.SlotBytes)
	}
	return err
}

// systemHash is of all that a slot boots beside its root image. As the salt of
// that image's hash tree it is in the root hash, which so names a whole system:
// two versions of Slipway may share every byte of the root image.
func systemHash(list []Artifact, arguments []string) []byte {
	h := sha256.New()
	for _, a := range list {
		if a.Name == Kernel || a.Name == InitramfsDisk {
			fmt.Fprintln(h, a.Name, a.SHA256)
		}
	}
	fmt.Fprintln(h, strings.Join(arguments, " "))
	return h.Sum(nil)
}

// unified joins the kernel and the initramfs for disks, which are written
// already, under the command line of an installed machine.
func (b *Builder) unified(root *rootImage, m *Manifest) ([]byte, error) {
	var parts [3][]byte
	for i, file := range []string{root.path("stub"), filepath.Join(b.Out, InitramfsDisk), filepath.Join(b.Out, Kernel)} {
		var err error
		if parts[i], err = os.ReadFile(file); err != nil {
			return nil, err
		}
	}
	return uki.Join(parts[0],
		uki.Section{Name: ".osrel", Data: fmt.Appendf(nil, "NAME=Slipway\nID=slipway\nPRETTY_NAME=\"Slipway %s\"\nVERSION_ID=%q\n", m.Version, m.Version)},
		uki.Section{Name: ".uname", Data: []byte(m.Kernel)},
		uki.Section{Name: ".cmdline", Data: []byte(m.DiskArguments())},
		uki.Section{Name: ".initrd", Data: parts[1]},
		uki.Section{Name: ".linux", Data: parts[2]})
}
