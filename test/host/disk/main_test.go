// Package disk lets programs that we did not write make disks, and looks at
// what nodeinit/disk says of them and does to them; and the other way round.
// Most disks are files, which needs no rights; what needs device nodes uses
// loop devices, or is skipped with the reason.
package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
	"slipway/test/need"
)

const diskSize = disklayout.SmallestDisk

var (
	us     = disk.Owner{Machine: "52-54-00-12-34-56", Cluster: "prod"}
	others = disk.Owner{Machine: "52-54-00-12-34-56", Cluster: "lab"}
)

// run runs a program that must succeed.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	return runWith(t, "", program, args...)
}

func runWith(t *testing.T, stdin, program string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &out)
	}
	return out.String()
}

// image is a blank disk in a file: all holes, and without device nodes.
func image(t *testing.T) disk.Disk { return sized(t, diskSize) }

func sized(t *testing.T, size int64) disk.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return disk.Disk{Name: "disk", Path: path, Size: size, SectorSize: 512, Type: disk.Virtual}
}

// loop is a blank disk with a device node.
func loop(t *testing.T, sector string) disk.Disk { return attach(t, image(t), sector) }

// attach gives an image a device node.
func attach(t *testing.T, d disk.Disk, sector string) disk.Disk {
	t.Helper()
	need.Programs(t, "losetup")
	if os.Getuid() != 0 {
		t.Skip("needs loop devices: only root may make them")
	}
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", sector, d.Path).CombinedOutput()
	if err != nil {
		t.Skipf("needs loop devices: %v: %s", err, out)
	}
	d.Path = strings.TrimSpace(string(out))
	d.Name = filepath.Base(d.Path)
	if sector == "4096" {
		d.SectorSize = 4096
	}
	t.Cleanup(func() {
		_ = exec.Command("partx", "--delete", d.Path).Run() // fails when there are none left
		run(t, "losetup", "--detach", d.Path)
	})
	return d
}

func survey(t *testing.T, owner disk.Owner, d disk.Disk) disk.Manifest {
	t.Helper()
	m, err := disk.Tools{}.Survey(t.Context(), owner, d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func take(t *testing.T, d disk.Disk, owner disk.Owner, agreed string) *disk.Held {
	t.Helper()
	h, err := disk.Tools{}.Take(t.Context(), d, owner, agreed)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func plan(t *testing.T, data int64) []disklayout.Partition {
	t.Helper()
	p, err := disklayout.Plan(diskSize, data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// partition takes a disk, gives it the plan's partitions, and lets it go. The
// disk it returns has them.
func partition(t *testing.T, d disk.Disk, owner disk.Owner, agreed string, data int64) disk.Disk {
	t.Helper()
	h := take(t, d, owner, agreed)
	list, err := h.Partition(t.Context(), plan(t, data))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	d.Partitions = list
	return d
}

// digest is of everything on a disk.
func digest(t *testing.T, d disk.Disk) string {
	t.Helper()
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
