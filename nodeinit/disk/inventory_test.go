package disk

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// tree loads a txtar file as a machine's root.
func tree(t *testing.T, file string) fstest.MapFS {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	root := fstest.MapFS{}
	for _, f := range a.Files {
		root[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	return root
}

func TestInventory(t *testing.T) {
	root := tree(t, "testdata/server.txtar")
	root["sys/block/sda/device/vpd_pg80"] = &fstest.MapFile{Data: []byte("\x00\x80\x00\x0a  Z1Z2ABCD")}
	got, err := Inventory(root)
	if err != nil {
		t.Fatal(err)
	}
	ssd := int64(468862128 * 512)
	want := []Disk{
		{Name: "sda", Path: "/dev/sda", Model: "EXAMPLE HDD 4TB", Serial: "Z1Z2ABCD", WWN: "naa.5000c500a1b2c3d4", Size: 4000787030016, SectorSize: 512, Type: HDD,
			Uses: []string{"md127 is built on sda"}},
		{Name: "sdb", Path: "/dev/sdb", Model: "EXAMPLE SSD", Size: ssd, SectorSize: 512, Type: SSD, ReadOnly: true},
		{Name: "sdc", Path: "/dev/sdc", Model: "QEMU HARDDISK", Size: ssd, SectorSize: 512, Type: Virtual,
			Uses:       []string{"sdc2 is mounted at /mnt/old", "dm-0 is built on sdc2"},
			Partitions: []Partition{{Name: "sdc2", Path: "/dev/sdc2", Number: 2, Start: 1 << 20, Size: 2 << 20}}},
		{Name: "sdd", Path: "/dev/sdd", Model: "STICK", Size: 30752000000, SectorSize: 512, Type: SSD, Removable: true,
			Uses:       []string{"sdd1 is mounted at /home"},
			Partitions: []Partition{{Name: "sdd1", Path: "/dev/sdd1", Number: 1}}},
		{Name: "sde", Path: "/dev/sde", Model: "SWAPS", Size: ssd, SectorSize: 512, Type: SSD,
			Uses:       []string{"sde1 is swapped to"},
			Partitions: []Partition{{Name: "sde1", Path: "/dev/sde1", Number: 1}}},
		{Name: "vda", Path: "/dev/vda", Serial: "disk-1", Size: 20 << 30, SectorSize: 512, Type: Virtual},
		{Name: "nvme0n1", Path: "/dev/nvme0n1", Model: "EXAMPLE NVME 960GB", Serial: "S3EVNX0K000001", WWN: "eui.0025384000000001", Size: 960197124096, SectorSize: 4096, Type: NVMe,
			Partitions: []Partition{{Name: "nvme0n1p1", Path: "/dev/nvme0n1p1", Label: "slipway-bios", Number: 1, Start: 1 << 20, Size: 1 << 20}}},
		{Name: "cciss!c0d0", Path: "/dev/cciss/c0d0", Model: "OLD ARRAY", Size: 20 << 30, SectorSize: 512, Type: SSD},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p, ok := got[6].Partition("slipway-bios"); !ok || p.Number != 1 {
		t.Errorf("slipway-bios is %v, %v", p, ok)
	}
}

// TestInventoryUSB: sysfs links a disk to its place, which tells a disk on USB
// that does not call itself removable.
func TestInventoryUSB(t *testing.T) {
	const place = "sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/host6/target6:0:0/6:0:0:0/block/sda"
	root := fstest.MapFS{
		"proc/self/mountinfo":       {},
		"sys/block/sda":             {Mode: fs.ModeSymlink, Data: []byte("../devices/pci0000:00/0000:00:14.0/usb2/2-1/host6/target6:0:0/6:0:0:0/block/sda")},
		place + "/size":             {Data: []byte("41943040\n")},
		place + "/removable":        {Data: []byte("0\n")},
		place + "/device/model":     {Data: []byte("PORTABLE\n")},
		place + "/queue/rotational": {Data: []byte("0\n")},
	}
	got, err := Inventory(root)
	if err != nil || len(got) != 1 || !got[0].Removable {
		t.Errorf("got %+v, %v; want one removable disk", got, err)
	}
}

// TestInventoryUnknown: without a list of mounts nothing is known to be free.
func TestInventoryUnknown(t *testing.T) {
	if list, err := Inventory(fstest.MapFS{"sys/block/sda/size": {Data: []byte("1")}}); err == nil {
		t.Errorf("got %v without knowing what is in use", list)
	}
}
