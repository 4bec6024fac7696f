package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"slipway/nodeinit/disk"
	"slipway/test/need"
)

// owners make disks that somebody else owns, each by the program that its users
// have. Three are not run here, but were once: see testdata/owners.sh.
var owners = []struct {
	kind, label string
	version     string // of the format
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
	{kind: "mdraid", version: "0.90", make: recorded("mdraid-0.90")},
	{kind: "mdraid", label: "old:0", version: "1.0", make: recorded("mdraid-1.0")},
	{kind: "mdraid", label: "old:0", version: "1.1", make: recorded("mdraid-1.1")},
	{kind: "mdraid", label: "old:0", version: "1.2", make: recorded("mdraid-1.2")},
	{kind: "ZFS", label: "old", make: recorded("zfs")},
	{kind: "Ceph", make: recorded("ceph")},
}

// TestSignatures: every owner is found and named, is not overwritten unless its
// manifest was agreed to, and is gone after that.
func TestSignatures(t *testing.T) {
	need.Programs(t, "wipefs")
	for _, owner := range owners {
		t.Run(strings.TrimSpace(owner.kind+" "+owner.version), func(t *testing.T) {
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
			if slices.ContainsFunc(found[1:], func(s disk.Signature) bool { return s.Kind == owner.kind }) {
				t.Errorf("it is named more than once:\n%s", m.Text())
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

// recorded writes what testdata/owners.sh recorded of a disk.
func recorded(name string) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		a, err := txtar.ParseFile("testdata/owners.txtar")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == name })
		if i < 0 {
			t.Fatalf("%s was not recorded", name)
		}
		for line := range strings.Lines(string(a.Files[i].Data)) {
			at, b, err := parseDump(line)
			if err != nil {
				t.Fatalf("%s: %q: %v", name, line, err)
			}
			write(t, path, at, b)
		}
	}
}

// parseDump reads a line of od: where it is on the disk, what is there in
// hexadecimal, and the same as text.
func parseDump(line string) (at int64, b []byte, err error) {
	address, rest, _ := strings.Cut(line, " ")
	digits, _, _ := strings.Cut(rest, "  >")
	at, err = strconv.ParseInt(address, 16, 64)
	if err != nil {
		return 0, nil, err
	}
	b, err = hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	return at, b, err
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
