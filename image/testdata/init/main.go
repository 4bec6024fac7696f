// Command init proves that an image boots: it loads the boot modules, mounts
// the root image, runs a program of it and powers off. It stands in for the real
// init in the tests of package image.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := boot(); err != nil {
		fmt.Println("image-test: failed:", err)
	} else {
		fmt.Println("image-test: ok")
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	mounts := []struct{ source, target, kind string }{
		{"devtmpfs", "/dev", "devtmpfs"}, {"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := mountRoot("/root.squashfs", "/root"); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc"} {
		if err := unix.Mount(dir, "/root"+dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", dir, err)
		}
	}
	return runPrograms()
}

// loadModules loads the files named in dir/order, one by one.
func loadModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		if err := load(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// load loads one module file; one that is loaded already is no error.
func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load module %s: %w", file, err)
	}
	return nil
}

// probe loads a module and what modules.dep says it needs, last first.
func probe(name string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	dir := "/lib/modules/" + unix.ByteSliceToString(u.Release[:])
	table, err := os.ReadFile(dir + "/modules.dep")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		files := strings.Fields(strings.Replace(line, ":", " ", 1))
		if filepath.Base(files[0]) != name+".ko" {
			continue
		}
		for _, file := range slices.Backward(files) {
			if err := load(filepath.Join(dir, file)); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("modules.dep lists no module %s", name)
}

// mountRoot mounts an image file by way of the first loop device.
func mountRoot(image, target string) error {
	file, err := os.Open(image)
	if err != nil {
		return err
	}
	defer file.Close()
	loop, err := os.OpenFile("/dev/loop0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err != nil {
		return fmt.Errorf("attach %s to /dev/loop0: %w", image, err)
	}
	if err := unix.Mount("/dev/loop0", target, "squashfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s: %w", image, err)
	}
	return nil
}

// runPrograms runs static and dynamically linked programs of the root image, in
// it.
func runPrograms() error {
	if err := unix.Chroot("/root"); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	for _, name := range []string{"nf_tables", "virtio_net", "nvme", "xfs"} {
		if err := probe(name); err != nil {
			return fmt.Errorf("load module %s from the root image: %w", name, err)
		}
	}
	for _, words := range [][]string{{"/usr/bin/kubelet", "--version"}, {"/usr/sbin/nft", "--version"}, {"/usr/sbin/iptables", "--version"},
		{"/usr/bin/mount", "--version"}, {"/usr/bin/runc", "--version"},
		{"/usr/sbin/wipefs", "--version"}, {"/usr/sbin/mke2fs", "-V"}, {"/usr/sbin/e2fsck", "-V"}} {
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		fmt.Printf("image-test: %s: %s\n", words[0], out)
		if err != nil {
			return fmt.Errorf("run %s: %w", words[0], err)
		}
	}
	return nil
}
