package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"slipway/configs/disklayout"
	"slipway/configs/wipe"
	"slipway/nodeinit/disk"
	"slipway/test/need"
)

// TestAdopt: a disk that was nobody's is its machine's, and of no other.
func TestAdopt(t *testing.T) {
	need.Programs(t, "wipefs")
	d, state := image(t), t.TempDir()
	partition(t, d, others, "", 0)
	for range 2 {
		if err := disk.Adopt(d, us, state); err != nil {
			t.Fatal(err)
		}
	}
	if len(survey(t, us, d).Foreign()) > 0 || len(survey(t, others, d).Foreign()) == 0 {
		t.Error("the disk is not its new owner's alone")
	}
	text, err := os.ReadFile(filepath.Join(state, "owner"))
	if err != nil || string(text) != "machine 52-54-00-12-34-56\ncluster prod\n" {
		t.Errorf("the state partition says %q, %v", text, err)
	}
	if err := disk.Adopt(image(t), us, state); err == nil {
		t.Error("a blank disk was adopted")
	}
}

// TestWipe: the running system's disk loses what Slipway made, in each of the
// ways, and keeps what it did not make; without that, the disk is blank. What
// was in files is gone if that was asked for, but for the slot that runs.
func TestWipe(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs", "sfdisk", "partx", "mkfs.xfs", "mount")
	for _, how := range []wipe.How{wipe.Metadata, wipe.Discard, wipe.Zero} {
		for _, volumes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, volumes %v", how, volumes), func(t *testing.T) {
				d := partition(t, loop(t, "512"), us, "", 4*gib)
				format(t, d, us)
				volume := ""
				if volumes {
					volume = addVolume(t, d)
				}
				data, slotA := part(t, d, disklayout.DataLabel), part(t, d, disklayout.SlotALabel)
				write(t, d.Path, data.Start+2*gib, []byte("a secret"))
				runFrom(t, slotA)
				if err := (disk.Tools{}).CanErase(d, how); err != nil {
					t.Fatal(err)
				}
				if err := (disk.Tools{}).Wipe(t.Context(), d, how); err != nil {
					t.Fatal(err)
				}
				if left := read(t, d.Path, data.Start+2*gib, 8) == "a secret"; left != (how == wipe.Metadata) {
					t.Errorf("content is left: %v", left)
				}
				wantOnly(t, d, volume)
			})
		}
	}
}

// runFrom has a partition in use, as the slot of a running system is.
func runFrom(t *testing.T, p disk.Partition) {
	t.Helper()
	run(t, "mke2fs", "-q", p.Path)
	root := t.TempDir()
	run(t, "mount", "-o", "ro", p.Path, root)
	t.Cleanup(func() { run(t, "umount", root) })
}

// wantOnly wants a disk to be blank but for a user's volume, if there is one.
func wantOnly(t *testing.T, d disk.Disk, volume string) {
	t.Helper()
	d.Partitions = nil
	if volume == "" {
		if m := survey(t, others, d); len(m.Foreign()) > 0 {
			t.Errorf("left on the disk:\n%s", m.Text())
		}
		return
	}
	run(t, "xfs_repair", "-n", volume)
	left, err := disk.Listed(d)
	if err != nil || len(left) != 1 || left[0].Label != "volume" || left[0].Number != 7 {
		t.Errorf("left are %v, %v; want the user's volume", left, err)
	}
	d.Partitions = []disk.Partition{{Path: volume, Number: 7}}
	text := survey(t, us, d).Text()
	if !strings.Contains(text, `partition 7 named "volume": xfs label "mine"`) || strings.Contains(text, "installation") || strings.Contains(text, "Slipway") {
		t.Errorf("left on the disk:\n%s", text)
	}
}

// TestWipeInUse: a file system that somebody still uses is an error, and does
// not keep the rest of the disk from being wiped.
func TestWipeInUse(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs", "partx", "mount")
	d := partition(t, loop(t, "512"), us, "", 0)
	format(t, d, us)
	runFrom(t, part(t, d, disklayout.DataLabel))
	err := disk.Tools{}.Wipe(t.Context(), d, wipe.Metadata)
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), "partition slipway-data: the disk is in use") {
		t.Errorf("the error is %v", err)
	}
	wantOnly(t, d, "")
}

// TestCanErase: a way that a disk does not know is refused while nothing is lost.
func TestCanErase(t *testing.T) {
	rotating := disk.Tools{Root: fstest.MapFS{"sys/block/sda/queue/discard_max_bytes": {Data: []byte("0\n")}}}
	d := disk.Disk{Name: "sda", Path: "/dev/sda"}
	for how, want := range map[wipe.How]string{
		wipe.Metadata: "", wipe.Zero: "",
		wipe.Discard: "wipe /dev/sda: the disk has no discard; ask for zero, or for metadata only",
	} {
		if err := rotating.CanErase(d, how); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %q", how, err, want)
		}
	}
}

// addVolume makes a user's partition behind ours.
func addVolume(t *testing.T, d disk.Disk) string {
	t.Helper()
	runWith(t, "size=400M,name=volume\n", "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--append", d.Path)
	run(t, "partx", "--update", d.Path)
	path := d.Path + "p7"
	run(t, "mkfs.xfs", "-q", "-L", "mine", path)
	return path
}

func read(t *testing.T, path string, at, size int64) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return string(b)
}
