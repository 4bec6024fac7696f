package disk

import (
	"errors"
	"testing"
)

const gb = int64(1e9)

func TestChoose(t *testing.T) {
	disks := []Disk{
		{Name: "sda", Path: "/dev/sda", Size: 4000 * gb, Type: HDD, Model: "EXAMPLE HDD 4TB", Serial: "Z2", WWN: "naa.5000c500a1b2c3d4"},
		{Name: "sdb", Path: "/dev/sdb", Size: 480 * gb, Type: SSD, Model: "EXAMPLE SSD A/B", Serial: "S2"},
		{Name: "sdc", Path: "/dev/sdc", Size: 480 * gb, Type: SSD, Model: "EXAMPLE SSD A/B", Serial: "S1"},
		{Name: "sdd", Path: "/dev/sdd", Size: 32 * gb, Type: SSD, Model: "STICK", Serial: "U1", Removable: true},
		{Name: "sde", Path: "/dev/sde", Size: 4 * gb, Type: SSD, Model: "DOM"},
		{Name: "sdf", Path: "/dev/sdf", Size: 100 * gb, Type: SSD, Model: "LOCKED", ReadOnly: true},
		{Name: "sdg", Path: "/dev/sdg", Size: 100 * gb, Type: SSD, Model: "BUSY", Uses: []string{"sdg1 is mounted at /mnt"}},
		{Name: "nvme0n1", Path: "/dev/nvme0n1", Size: 960 * gb, Type: NVMe, Model: "EXAMPLE NVME", WWN: "eui.0025384000000001"},
	}
	for _, tt := range []struct {
		name string
		rule Rule
		want string // the path
	}{
		{"any: the smallest, of equals the lowest serial number", Rule{}, "/dev/sdc"},
		{"by path", Rule{Path: "/dev/sdb"}, "/dev/sdb"},
		{"by serial", Rule{Serial: "z2"}, "/dev/sda"},
		{"by wwn as the kernel writes it", Rule{WWN: "naa.5000c500a1b2c3d4"}, "/dev/sda"},
		{"by wwn as lsblk writes it", Rule{WWN: "0x5000C500A1B2C3D4"}, "/dev/sda"},
		{"by wwn of NVMe", Rule{WWN: "0025384000000001"}, "/dev/nvme0n1"},
		{"by model", Rule{Model: "*nvme*"}, "/dev/nvme0n1"},
		{"by model with a slash", Rule{Model: "example ssd*"}, "/dev/sdc"},
		{"by type", Rule{Type: HDD}, "/dev/sda"},
		{"by least size", Rule{MinSize: 960 * gb}, "/dev/nvme0n1"},
		{"by both sizes", Rule{MinSize: 481 * gb, MaxSize: 1000 * gb}, "/dev/nvme0n1"},
		{"all must fit", Rule{Type: SSD, Serial: "S2"}, "/dev/sdb"},
		{"a stick, when it is meant", Rule{Serial: "U1"}, "/dev/sdd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Choose(tt.rule, disks)
			if err != nil || got.Path != tt.want {
				t.Errorf("got %s, %v; want %s", got.Path, err, tt.want)
			}
		})
	}
}

func TestChooseNone(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rule  Rule
		disks []Disk
		want  string
	}{
		{"no disk at all", Rule{}, nil,
			"no disk to install to (disk: any): the machine has no disk, or none that the image has a driver for"},
		{"nothing suitable", Rule{}, []Disk{
			{Path: "/dev/sda", Size: 4 * gb, Type: SSD, Model: "DOM", Serial: "D1"},
			{Path: "/dev/sdb", Size: 100 * gb, Type: HDD, Uses: []string{"sdb1 is mounted at /mnt"}, ReadOnly: true},
			{Path: "/dev/sdc", Size: 100 * gb, Type: SSD, Removable: true},
		}, "no disk to install to (disk: any): /dev/sda (4.0 GB, ssd, DOM, serial D1) is too small: an installation wants 6.4 GB; " +
			"/dev/sdb (100.0 GB, hdd) is read-only, is in use (sdb1 is mounted at /mnt); " +
			"/dev/sdc (100.0 GB, ssd) is removable or on USB, and is taken only when the rule names it by path, serial or wwn"},
		{"nothing that the rule means", Rule{Type: SSD, Serial: "X", MinSize: 200 * gb, MaxSize: 300 * gb}, []Disk{
			{Path: "/dev/sda", Size: 100 * gb, Type: HDD},
			{Path: "/dev/sdb", Size: 400 * gb, Type: SSD, Serial: "Y"},
		}, "no disk to install to (serial: X, type: ssd, minSize: 200.0 GB, maxSize: 300.0 GB): " +
			"/dev/sda (100.0 GB, hdd) has no serial, is of type hdd, is smaller than 200.0 GB; " +
			"/dev/sdb (400.0 GB, ssd, serial Y) has serial Y, is larger than 300.0 GB"},
		{"a wwn of nothing is not the wwn of a disk without", Rule{WWN: "0x1"}, []Disk{{Path: "/dev/vda", Size: 100 * gb, Type: Virtual}},
			"no disk to install to (wwn: 0x1): /dev/vda (100.0 GB, virtual) has no wwn"},
		{"a pattern that is none", Rule{Model: "["}, []Disk{{Path: "/dev/vda", Size: 100 * gb, Type: Virtual, Model: "["}},
			"no disk to install to (model: [): /dev/vda (100.0 GB, virtual, [) has model ["},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Choose(tt.rule, tt.disks)
			if !errors.Is(err, ErrNoDisk) || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// TestChooseStable: the order in which the kernel counts disks changes nothing.
func TestChooseStable(t *testing.T) {
	a := Disk{Name: "sda", Path: "/dev/sda", Size: 10 * gb, Serial: "1"}
	b := Disk{Name: "sdb", Path: "/dev/sdb", Size: 10 * gb, Serial: "2"}
	first, _ := Choose(Rule{}, []Disk{a, b})
	a.Name, a.Path, b.Name, b.Path = b.Name, b.Path, a.Name, a.Path
	second, _ := Choose(Rule{}, []Disk{b, a})
	if first.Serial != "1" || second.Serial != "1" {
		t.Errorf("chose %s, then %s", first.Serial, second.Serial)
	}
}
