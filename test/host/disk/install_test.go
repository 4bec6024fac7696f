package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
	"slipway/test/need"
)

const gib = int64(1) << 30

// format gives an installed disk its file systems.
func format(t *testing.T, d disk.Disk, owner disk.Owner) {
	t.Helper()
	for _, label := range []string{disklayout.StateLabel, disklayout.DataLabel} {
		if err := (disk.Tools{}).MakeExt4(t.Context(), part(t, d, label), owner); err != nil {
			t.Fatal(err)
		}
	}
	if err := disk.MakeFAT(part(t, d, disklayout.BootLabel)); err != nil {
		t.Fatal(err)
	}
}

func part(t *testing.T, d disk.Disk, label string) disk.Partition {
	t.Helper()
	p, ok := d.Partition(label)
	if !ok {
		t.Fatalf("there is no %s in %v", label, d.Partitions)
	}
	return p
}

// TestInstall: programs that we did not write agree that the table and the file
// systems are right, on disks of both sector sizes; a second run loses nothing.
func TestInstall(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs", "e2fsck", "fsck.vfat", "sfdisk", "blkid")
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			d := loop(t, sector)
			dirty(t, d)
			d = partition(t, d, us, survey(t, us, d).Hash(), 0)
			format(t, d, us)
			if out := run(t, "sfdisk", "--verify", d.Path); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk: %s", out)
			}
			wantSystems(t, d)

			again := partition(t, d, us, "", 0)
			if diff := cmp.Diff(d, again); diff != "" {
				t.Errorf("the second time it is another disk:\n%s", diff)
			}
			wantSystems(t, again)
			if m := survey(t, us, d); len(m.Foreign()) > 0 {
				t.Errorf("our own disk is foreign:\n%s", m.Text())
			}
		})
	}
}

// dirty fills the places of our file systems with what must not shine through.
func dirty(t *testing.T, d disk.Disk) {
	t.Helper()
	noise := []byte(strings.Repeat("old content! ", 1<<20))
	for _, p := range disklayout.System() {
		write(t, d.Path, p.Start, noise)
	}
}

func wantSystems(t *testing.T, d disk.Disk) {
	t.Helper()
	for label, want := range map[string]string{
		disklayout.BootLabel: "vfat SLIPWAY", disklayout.StateLabel: "ext4 slipway-state", disklayout.DataLabel: "ext4 slipway-data",
	} {
		path := part(t, d, label).Path
		check := []string{"e2fsck", "-f", "-n"}
		if label == disklayout.BootLabel {
			check = []string{"fsck.vfat", "-n"}
		}
		run(t, check[0], append(check[1:], path)...)
		got := run(t, "blkid", "--probe", "--output", "value", "--match-tag", "TYPE", path) +
			run(t, "blkid", "--probe", "--output", "value", "--match-tag", "LABEL", path)
		if got = strings.Join(strings.Fields(got), " "); got != want {
			t.Errorf("%s is %s, want %s", label, got, want)
		}
	}
}

// TestStrangersDisk: what is in partitions is found there; a hash from before a
// change agrees to nothing; another disk is not touched.
func TestStrangersDisk(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs", "mkfs.xfs", "sfdisk", "partx", "mkswap")
	d, other := loop(t, "512"), attach(t, sized(t, 64<<20), "512")
	before := digest(t, other)
	runWith(t, "label: gpt\n,1G,,,\nname=root,size=2G\n,\n", "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", d.Path)
	run(t, "partx", "--update", d.Path)
	for i := range 3 {
		d.Partitions = append(d.Partitions, disk.Partition{Path: fmt.Sprintf("%sp%d", d.Path, i+1), Number: i + 1})
	}
	run(t, "mkswap", d.Path+"p1")
	run(t, "mke2fs", "-q", "-t", "ext4", "-L", "root", d.Path+"p2")
	m := survey(t, us, d)
	var got []string
	for _, s := range m.Foreign() {
		s.UUID = ""
		got = append(got, s.String())
	}
	want := []string{"whole disk: GPT", "partition 1: swap", `partition 2 named "root": ext4 label "root"`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	run(t, "mkfs.xfs", "-q", d.Path+"p3")
	if _, err := (disk.Tools{}).Take(t.Context(), d, us, m.Hash()); !isNotAgreed(err) {
		t.Errorf("the disk changed since the hash, and Take says %v", err)
	}
	partition(t, d, us, survey(t, us, d).Hash(), 0)
	if digest(t, other) != before {
		t.Error("another disk was written")
	}
}

// TestOtherCluster: an installation of another cluster is foreign and named, is
// not overwritten unless its manifest was agreed to, and is gone after that.
func TestOtherCluster(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs", "partx")
	d := partition(t, loop(t, "512"), others, "", 0)
	format(t, d, others)
	m := survey(t, us, d)
	if found := m.Foreign(); len(found) == 0 || found[0].Kind != "Slipway" || found[0].Label != "lab" {
		t.Errorf("found %v, want Slipway of the cluster lab", found)
	}
	if len(survey(t, others, d).Foreign()) > 0 {
		t.Error("it is foreign to its owner")
	}
	if _, err := (disk.Tools{}).Take(t.Context(), d, us, ""); !isNotAgreed(err) {
		t.Errorf("taken without a hash: %v", err)
	}
	d = partition(t, d, us, m.Hash(), 0)
	if m := survey(t, us, d); !m.Disks[0].Own {
		t.Errorf("the disk is not ours afterwards:\n%s", m.Text())
	}
	if len(survey(t, others, d).Foreign()) == 0 {
		t.Error("the other cluster takes it for its own")
	}
}

// TestInUse: a disk with something mounted on it is not taken, and neither its
// file systems nor a partition is written.
func TestInUse(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs", "partx", "mount")
	d := partition(t, loop(t, "512"), us, "", 0)
	format(t, d, us)
	dir := t.TempDir()
	state := part(t, d, disklayout.StateLabel)
	run(t, "mount", state.Path, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	owner, err := os.ReadFile(filepath.Join(dir, "owner"))
	if want := "machine 52-54-00-12-34-56\ncluster prod\n"; err != nil || string(owner) != want {
		t.Errorf("the state partition is of %q, %v; want %q", owner, err, want)
	}
	_, err = disk.Tools{}.Take(t.Context(), d, us, "")
	for what, err := range map[string]error{
		"Take":     err,
		"MakeExt4": disk.Tools{}.MakeExt4(t.Context(), state, us),
		"MakeFAT":  disk.MakeFAT(state),
	} {
		if !errors.Is(err, disk.ErrInUse) {
			t.Errorf("%s of a disk in use: %v", what, err)
		}
	}
}

// TestOwnerOf: a machine finds its own installation before it knows its
// cluster, and takes no other disk for that.
func TestOwnerOf(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs")
	d := loop(t, "512")
	expect := func(when string, want disk.Owner) {
		t.Helper()
		if got, err := disk.OwnerOf(d); err != nil || got != want {
			t.Errorf("%s it is of %+v, %v; want %+v", when, got, err, want)
		}
	}
	expect("blank,", disk.Owner{})
	d = partition(t, d, us, "", 0)
	expect("before its file systems are made,", disk.Owner{})
	if err := (disk.Tools{}).MakeExt4(t.Context(), part(t, d, disklayout.StateLabel), us); err != nil {
		t.Fatal(err)
	}
	expect("installed,", us)
	if err := (disk.Tools{}).MakeExt4(t.Context(), part(t, d, disklayout.StateLabel), others); err != nil {
		t.Fatal(err)
	}
	expect("with a state partition of others,", disk.Owner{})
}

// TestReplaced: a path that has become another disk's is refused.
func TestReplaced(t *testing.T) {
	need.Programs(t, "wipefs")
	d := loop(t, "512")
	d.Serial = "of the disk that was here"
	if _, err := (disk.Tools{}).Take(t.Context(), d, us, ""); !errors.Is(err, disk.ErrReplaced) {
		t.Errorf("another disk was taken: %v", err)
	}
}

// TestOtherLife: a disk that was made to look blank has the same partitions
// again, and not the file systems that were in them.
func TestOtherLife(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs", "partx")
	d := loop(t, "512")
	format(t, partition(t, d, others, "", 0), others)
	run(t, "partx", "--delete", d.Path)
	run(t, "wipefs", "--quiet", "--all", d.Path)
	if m := survey(t, us, d); len(m.Foreign()) > 0 {
		t.Fatalf("the disk does not look blank:\n%s", m.Text())
	}
	d = partition(t, d, us, "", 0)
	for _, p := range d.Partitions {
		if left := run(t, "wipefs", "--no-act", p.Path); left != "" {
			t.Errorf("in %s is\n%s", p.Label, left)
		}
	}
}
