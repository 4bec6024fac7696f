package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
	"slipway/test/need"
)

// failing is a disk with something on it whose writes fail from now on: its file
// lies on a file system that is full. The first is as the kernel shows it, the
// second what is really there.
func failing(t *testing.T) (d, medium disk.Disk) {
	t.Helper()
	need.Programs(t, "losetup", "mkswap")
	if os.Getuid() != 0 {
		t.Skip("needs a file system of its own: only root may mount one")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("needs a file system of its own: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	medium = disk.Disk{Name: "disk", Path: filepath.Join(dir, "disk"), Size: diskSize, SectorSize: 512, Type: disk.Virtual}
	f, err := os.Create(medium.Path)
	if err == nil {
		err = errors.Join(f.Truncate(diskSize), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "mkswap", "-L", "precious", medium.Path)
	d = attach(t, medium, "512")
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for err == nil {
		_, err = filler.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return d, medium
}

// TestWriteErrors: a disk that takes no write any more is an error which names
// it and what was written, and the step is the first one: nothing that was on
// the disk is lost.
func TestWriteErrors(t *testing.T) {
	need.Programs(t, "wipefs")
	d, medium := failing(t)
	before := survey(t, us, medium).Text()
	h := take(t, d, us, survey(t, us, d).Hash())
	_, err := h.Partition(t.Context(), plan(t, 0))
	if want := "partition " + d.Path + ": write the claim: "; err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, unix.EIO) {
		t.Errorf("the error is %v, want %s… and an I/O error", err, want)
	}
	_ = h.Close()
	if after := survey(t, us, medium).Text(); after != before || !strings.Contains(after, "precious") {
		t.Errorf("on the disk was\n%sand is\n%s", before, after)
	}
}

// TestDiskGone: one that was chosen and is not there any more is named.
func TestDiskGone(t *testing.T) {
	d := image(t)
	if err := os.Remove(d.Path); err != nil {
		t.Fatal(err)
	}
	_, err := disk.Tools{}.Take(t.Context(), d, us, "")
	if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "take "+d.Path+": ") {
		t.Errorf("take: %v", err)
	}
	if _, err := (disk.Tools{}).Survey(t.Context(), us, d); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "look at "+d.Path+": ") {
		t.Errorf("survey: %v", err)
	}
}

// TestTooSmall: a plan that does not fit is refused before a disk is looked at.
func TestTooSmall(t *testing.T) {
	for _, tt := range []struct {
		disk, data int64
		want       string
	}{
		{4 * gib, 0, "the disk is too small: it has 4096 MiB, Slipway wants at least 6144 MiB"},
		{8 * gib, 7 * gib, "the data partition's size does not fit: 7168 MiB were asked for, this disk takes 4096 to 6589 MiB"},
	} {
		if _, err := disklayout.Plan(tt.disk, tt.data); err == nil || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}
