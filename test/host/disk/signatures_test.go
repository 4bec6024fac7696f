package disk

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/nodeinit/disk"
	"slipway/test/need"
)

// owners make disks that somebody else owns. Their programs are the real ones,
// but for ZFS and Ceph, which Debian does not ship for a builder, and mdraid,
// whose program needs a kernel with it: they are written by hand as their
// formats are documented.
var owners = []struct {
	kind, label string
	programs    []string
	device      bool // needs a device node
	make        func(t *testing.T, path string)
}{
	{kind: "GPT", programs: []string{"sfdisk"}, make: func(t *testing.T, path string) {
		runWith(t, "label: gpt\n,1G\n,\n", "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path)
	}},
	{kind: "MBR", programs: []string{"sfdisk"}, make: func(t *testing.T, path string) {
		runWith(t, "label: dos\n,1G\n,\n", "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path)
	}},
	{kind: "ext4", label: "old-root", programs: []string{"mke2fs"}, make: func(t *testing.T, path string) {
		run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "old-root", path)
	}},
	{kind: "xfs", label: "old-data", programs: []string{"mkfs.xfs"}, make: func(t *testing.T, path string) {
		run(t, "mkfs.xfs", "-q", "-L", "old-data", path)
	}},
	{kind: "btrfs", label: "old data\nof ours", programs: []string{"mkfs.btrfs"}, make: func(t *testing.T, path string) {
		run(t, "mkfs.btrfs", "-q", "-L", "label", path)
		relabel(t, path, "label", "old data\nof ours")
	}},
	{kind: "FAT", label: "OLD", programs: []string{"mkfs.vfat"}, make: func(t *testing.T, path string) {
		run(t, "mkfs.vfat", "-F", "32", "-n", "OLD", path)
	}},
	{kind: "NTFS", label: "old", programs: []string{"mkntfs"}, make: func(t *testing.T, path string) {
		run(t, "mkntfs", "--quick", "--force", "--quiet", "--label", "old", path)
	}},
	{kind: "swap", label: "old", programs: []string{"mkswap"}, make: func(t *testing.T, path string) {
		run(t, "mkswap", "--label", "old", path)
	}},
	{kind: "LUKS", programs: []string{"cryptsetup"}, make: func(t *testing.T, path string) {
		runWith(t, "password", "cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", path, "-")
	}},
	{kind: "LVM", programs: []string{"pvcreate"}, device: true, make: func(t *testing.T, path string) {
		run(t, "pvcreate", "--yes", "--quiet", path)
	}},
	{kind: "mdraid", label: "old:0", make: writeRAID},
	{kind: "ZFS", make: writeZFS},
	{kind: "Ceph", make: func(t *testing.T, path string) {
		// BlueStore's label, as its program writes it first.
		write(t, path, 0, []byte("bluestore block device\n00000000-1111-2222-3333-444444444444\n"))
	}},
}

// TestSignatures: every owner is found and named, is not overwritten unless its
// manifest was agreed to, and is gone after that.
func TestSignatures(t *testing.T) {
	need.Programs(t, "wipefs")
	for _, owner := range owners {
		t.Run(owner.kind, func(t *testing.T) {
			need.Programs(t, owner.programs...)
			d := image(t)
			if owner.device {
				d = loop(t, "512")
			}
			owner.make(t, d.Path)
			m := survey(t, us, d)
			found := m.Foreign()
			if len(found) == 0 || found[0].Kind != owner.kind || found[0].Label != owner.label {
				t.Fatalf("found %v, want %s with the label %q", found, owner.kind, owner.label)
			}
			if strings.Count(m.Text(), "\n") != 2+len(found) {
				t.Errorf("a label made lines of its own:\n%s", m.Text())
			}
			if _, err := (disk.Tools{}).Take(t.Context(), d, us, ""); !isNotAgreed(err) {
				t.Errorf("taken without a hash: %v", err)
			}
			partition(t, d, us, m.Hash(), 0)
			if got, want := kinds(t, d), []string{"PMBR", "gpt", "gpt"}; !cmp.Equal(got, want) {
				t.Errorf("wipefs finds %v afterwards, want %v", got, want)
			}
			if m := survey(t, us, d); len(m.Foreign()) > 0 || !m.Disks[0].Own {
				t.Errorf("the disk is not ours afterwards:\n%s", m.Text())
			}
		})
	}
}

// relabel writes another label into a file system, which its program would not.
func relabel(t *testing.T, path, old, label string) {
	t.Helper()
	const superblock, size, field = 0x10000, 4096, 0x12b
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, superblock); err != nil || !strings.HasPrefix(string(b[field:]), old+"\x00") {
		t.Fatalf("read the superblock: %v", err)
	}
	copy(b[field:], label)
	binary.LittleEndian.PutUint32(b, crc32c(b[0x20:]))
	if _, err := f.WriteAt(b, superblock); err != nil {
		t.Fatal(err)
	}
}

// writeZFS writes uberblocks into the first label of a pool's disk ("ZFS
// On-Disk Specification", 1.3: from 128 KiB on, one per KiB).
func writeZFS(t *testing.T, path string) {
	for i := range int64(8) {
		uberblock := make([]byte, 1024)
		binary.LittleEndian.PutUint64(uberblock, 0x00bab10c)
		binary.LittleEndian.PutUint64(uberblock[8:], 5000)
		write(t, path, 128<<10+i*1024, uberblock)
	}
}

// writeRAID writes a superblock of version 1.2 (linux/raid/md_p.h), 4 KiB from
// the begin.
func writeRAID(t *testing.T, path string) {
	b := make([]byte, 256+2)
	put := func(at int, value uint32) { binary.LittleEndian.PutUint32(b[at:], value) }
	put(0, 0xa92b4efc)
	put(4, 1) // major version
	copy(b[16:], "uuid of the set")
	copy(b[32:], "old:0") // name
	put(72, 1)            // level
	put(92, 1)            // disks
	put(144, 8)           // the superblock's own sector
	put(220, 1)           // devices in the list of roles behind
	var sum uint64
	for at := 0; at < 256; at += 4 {
		sum += uint64(binary.LittleEndian.Uint32(b[at:]))
	}
	sum += uint64(binary.LittleEndian.Uint16(b[256:]))
	put(216, uint32(sum)+uint32(sum>>32))
	write(t, path, 4096, b)
}

func write(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func crc32c(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func isNotAgreed(err error) bool { return errors.Is(err, disk.ErrNotAgreed) }

// kinds are what wipefs finds on a disk, sorted.
func kinds(t *testing.T, d disk.Disk) []string {
	t.Helper()
	list := strings.Fields(run(t, "wipefs", "--no-act", "--noheadings", "--output", "TYPE", d.Path))
	slices.Sort(list)
	return list
}
