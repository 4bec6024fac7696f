package enroll_test

import (
	"testing"

	"slipway/configs/enroll"
)

func TestDiskSize(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0 B", 999: "999 B", 8 << 30: "8.6 GB", 960197124096: "960.2 GB", 4e12: "4.0 TB"} {
		if got := enroll.DiskSize(bytes); got != want {
			t.Errorf("DiskSize(%d) = %q, want %q", bytes, got, want)
		}
	}
}

func TestDiskChanges(t *testing.T) {
	disk := func(name, serial string) enroll.Disk { return enroll.Disk{Name: name, Serial: serial, Size: 4e12} }
	a, b := disk("sda", "A"), disk("sdb", "B")
	bay := []enroll.Disk{a, b, disk("sdc", "C"), disk("sdd", "D"), disk("sde", "E"), disk("sdf", "F")}
	for name, tt := range map[string]struct {
		before, after []enroll.Disk
		want          string
	}{
		"none":                     {},
		"the same":                 {[]enroll.Disk{a, b}, []enroll.Disk{a, b}, ""},
		"found in another order":   {[]enroll.Disk{a, b}, []enroll.Disk{disk("sda", "B"), disk("sdb", "A")}, ""},
		"the first":                {nil, []enroll.Disk{a}, "new: sda 4.0 TB"},
		"one was added":            {[]enroll.Disk{a}, []enroll.Disk{a, b}, "new: sdb 4.0 TB"},
		"one was swapped":          {[]enroll.Disk{a, b}, []enroll.Disk{a, disk("sdb", "C")}, "new: sdb 4.0 TB; gone: sdb 4.0 TB"},
		"one has grown":            {[]enroll.Disk{{Name: "vda", Size: 8e9}}, []enroll.Disk{{Name: "vda", Size: 9e9}}, "new: vda 9.0 GB; gone: vda 8.0 GB"},
		"one of two that are like": {[]enroll.Disk{disk("vda", ""), disk("vdb", "")}, []enroll.Disk{disk("vdb", "")}, "gone: vdb 4.0 TB"},
		"a whole bay":              {nil, bay, "new: sda 4.0 TB, sdb 4.0 TB, sdc 4.0 TB, sdd 4.0 TB, 2 more"},
	} {
		if got := enroll.DiskChanges(tt.before, tt.after); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
