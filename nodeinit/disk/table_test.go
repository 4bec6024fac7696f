package disk

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/configs/disklayout"
)

var us, others = Owner{"52-54-00-12-34-56", "prod"}, Owner{"52-54-00-12-34-56", "lab"}

// blank is a disk in a file, all holes.
func blank(t *testing.T, size, sector int64) (Disk, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return Disk{Name: "disk", Path: path, Size: size, SectorSize: sector}, f
}

func planOf(t *testing.T, d Disk, data int64) []disklayout.Partition {
	t.Helper()
	plan, err := disklayout.Plan(d.Size, data)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func mustWrite(t *testing.T, tab *table, f storage, d Disk) {
	t.Helper()
	if err := tab.write(f, d); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, f storage, d Disk) *table {
	t.Helper()
	tab, err := readTable(f, d)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestTable(t *testing.T) {
	for _, tt := range []struct {
		name         string
		size, sector int64
		mbr          uint32 // sectors, as the protective MBR says
	}{
		{"smallest", disklayout.SmallestDisk, 512, 6<<21 - 1},
		{"sectors of 4096", disklayout.SmallestDisk, 4096, 6<<18 - 1},
		{"more than an MBR can say", 4 << 40, 512, 0xffffffff},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, f := blank(t, tt.size, tt.sector)
			if tab := mustRead(t, f, d); tab != nil {
				t.Fatalf("a blank disk has the table %+v", tab)
			}
			plan := planOf(t, d, 0)
			mustWrite(t, newTable(us, d, plan), f, d)
			tab := mustRead(t, f, d)
			if !tab.has(plan, d) || tab.GUID != us.guid() || !tab.hasSlipway() || tab.nameOf(5) != disklayout.StateLabel {
				t.Errorf("read back %+v", tab)
			}
			sectors := make([]byte, 4)
			if _, err := f.ReadAt(sectors, mbrEntry+12); err != nil || binary.LittleEndian.Uint32(sectors) != tt.mbr {
				t.Errorf("the protective MBR has %x sectors, %v; want %x", sectors, err, tt.mbr)
			}
		})
	}
}

// TestCompleted: what a disk with a raw image on it gets, by how much of it is
// to be for data. One that has it already keeps it.
func TestCompleted(t *testing.T) {
	d, _ := blank(t, disklayout.SmallestDisk, 512)
	raw := newTable(Owner{}, d, disklayout.System()[:4])
	var guids []string
	for _, p := range raw.Partitions {
		p.GUID = newGUID()
		guids = append(guids, p.GUID)
	}
	for data, want := range map[int64]int64{0: d.Size - 1603*disklayout.MiB, disklayout.SmallestData: disklayout.SmallestData, d.Size: -1} {
		next, missing, err := raw.completed(d, data)
		if want < 0 {
			if !errors.Is(err, disklayout.ErrDataSize) {
				t.Errorf("%d of %d bytes for data: %v", data, d.Size, err)
			}
			continue
		}
		if err != nil || len(missing) != 2 || !next.has(planOf(t, d, data), d) {
			t.Fatalf("%d bytes for data: %v, made %v", data, err, missing)
		}
		if p, _ := next.find(disklayout.DataLabel); int64(p.Size) != want {
			t.Errorf("data has %d bytes, want %d", p.Size, want)
		}
		for i, p := range next.Partitions[:4] {
			if p.GUID == guids[i] {
				t.Errorf("%s is still called %s, as on every machine with this image", p.Name, p.GUID)
			}
		}
		if _, missing, err := next.completed(d, d.Size); err != nil || missing != nil {
			t.Errorf("again, with another size: %v, makes %v", err, missing)
		}
	}
}

// TestBootGUID: what a loader says of the disk that it came from is what its table says.
func TestBootGUID(t *testing.T) {
	d, f := blank(t, disklayout.SmallestDisk, 512)
	if guid, err := BootGUID(d); err == nil {
		t.Errorf("a blank disk has a boot partition %q", guid)
	}
	made := newTable(us, d, planOf(t, d, 0))
	boot, _ := made.find(disklayout.BootLabel)
	boot.GUID = "0A9B5C1E-8D0F-4C53-9D2B-3C0E8B1A7F10"
	mustWrite(t, made, f, d)
	if guid, err := BootGUID(d); err != nil || guid != "0a9b5c1e-8d0f-4c53-9d2b-3c0e8b1a7f10" {
		t.Errorf("the boot partition is %q, %v", guid, err)
	}
}

// TestTableFromCopy: with its first copy gone the table is known, and not whole.
func TestTableFromCopy(t *testing.T) {
	d, f := blank(t, disklayout.SmallestDisk, 512)
	plan := planOf(t, d, 0)
	mustWrite(t, newTable(us, d, plan), f, d)
	if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	tab := mustRead(t, f, d)
	if tab == nil || tab.GUID != us.guid() || tab.has(plan, d) {
		t.Errorf("read %+v", tab)
	}
	found := finding{table: tab}
	if !found.own(us, d) || found.own(others, d) {
		t.Error("the disk is not its owner's alone")
	}
	found.marks = []mark{{device: "disk", kind: "ext4"}}
	if found.own(us, d) {
		t.Error("a disk that somebody else made a file system of is ours, for what is at its end")
	}
}

// TestHostileTable: a header with a right checksum and sizes that would take all
// memory is no table.
func TestHostileTable(t *testing.T) {
	for _, atEnd := range []bool{false, true} {
		d, f := blank(t, disklayout.SmallestDisk, 512)
		mustWrite(t, newTable(us, d, planOf(t, d, 0)), f, d)
		at := int64(512)
		if atEnd {
			at = d.Size - 512
			if _, err := f.WriteAt(make([]byte, 512), 512); err != nil {
				t.Fatal(err)
			}
		}
		header := make([]byte, 92)
		if _, err := f.ReadAt(header, at); err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(header[80:], 0xfffffff0)
		binary.LittleEndian.PutUint32(header[84:], 0xfffffff0)
		binary.LittleEndian.PutUint32(header[16:], 0)
		binary.LittleEndian.PutUint32(header[16:], crc32.ChecksumIEEE(header))
		if _, err := f.WriteAt(header, at); err != nil {
			t.Fatal(err)
		}
		if tab := mustRead(t, f, d); tab != nil {
			t.Errorf("at %d: read %+v", at, tab)
		}
	}
}

// TestMerge: an installation again, with another size of data, leaves the user's
// volumes where they are, or says that they are in the way.
func TestMerge(t *testing.T) {
	d, _ := blank(t, 40<<30, 512)
	first := planOf(t, d, 10<<30)
	volume := disklayout.Partition{Number: 7, Label: "volume", Type: disklayout.TypeLinuxData, Start: 20 << 30, Size: 1 << 30}
	tab := newTable(us, d, append(first, volume))
	for i, p := range tab.Partitions {
		p.End, p.GUID = p.Start+p.Size/512-1, strings.Repeat(string("ABCDEFG"[i]), 8)
	}

	merged, err := tab.merge(us, d, planOf(t, d, 12<<30))
	if err != nil || !merged.has(append(planOf(t, d, 12<<30), volume), d) {
		t.Errorf("merged %+v, %v", merged, err)
	}
	if p, _ := merged.find(disklayout.SlotALabel); p.GUID != "CCCCCCCC" {
		t.Errorf("a partition that stays has the GUID %q", p.GUID)
	}
	if _, err := tab.merge(us, d, planOf(t, d, 0)); err == nil || !strings.Contains(err.Error(), `partition 7 "volume"`) {
		t.Errorf("a plan over a user's volume: %v", err)
	}
	tab.Partitions[6].Index = 6
	if _, err := tab.merge(us, d, first); err == nil {
		t.Error("a plan that takes a user's number is accepted")
	}
}

// deaf is a disk that says it has written and has not.
type deaf struct{ storage }

func (deaf) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// broken is a disk that cannot be read.
type broken struct{ storage }

var errSector = &os.PathError{Op: "read", Path: "/dev/sda", Err: errors.New("input/output error")}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errSector }

func TestDiskErrors(t *testing.T) {
	d, f := blank(t, disklayout.SmallestDisk, 512)
	if _, err := readTable(broken{f}, d); !errors.Is(err, errSector) {
		t.Errorf("a disk that cannot be read: %v", err)
	}
	h := &Held{disk: d, owner: us, device: f, s: deaf{f}}
	plan := planOf(t, d, 0)
	if err := h.writeTable(newTable(us, d, plan), plan); err == nil {
		t.Error("a disk that keeps nothing is believed")
	}
}
