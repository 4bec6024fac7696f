package image

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"slipway/image/module"
	"slipway/image/verity"
)

func TestParseFormat(t *testing.T) {
	for _, name := range []string{"pxe", "raw", "iso"} {
		if f, err := ParseFormat(name); err != nil || string(f) != name {
			t.Errorf("%s: %q, %v", name, f, err)
		}
	}
	if _, err := ParseFormat("qcow2"); err == nil || err.Error() != `format "qcow2" is not valid; want pxe, raw or iso` {
		t.Errorf("error is %v", err)
	}
}

func TestCheckArgument(t *testing.T) {
	for word, ok := range map[string]bool{
		"quiet": true, "slipway.server=https://[fd00::1]:8443": true, "console=ttyS1,115200n8": true,
		"": false, "two words": false, `a="b"`: false, "a=$b": false, "a#b": false, "a\nb": false, `a\b`: false,
	} {
		if err := CheckArgument(word); (err == nil) != ok {
			t.Errorf("%q: %v", word, err)
		}
	}
}

func TestDiskArguments(t *testing.T) {
	m := Manifest{Arguments: []string{"console=tty0", "panic=30"}, Root: verity.Root{Hash: "0123", DataSize: 8192}}
	if got, want := m.DiskArguments(), "console=tty0 panic=30 slipway.root=0123 slipway.root-size=8192"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(m.Arguments) != 2 {
		t.Error("the manifest's own arguments changed")
	}
}

// TestDiskDrivers: what a driver depends on comes along, nothing else does.
func TestDiskDrivers(t *testing.T) {
	set := module.Set{
		"ahci":    {Path: "kernel/drivers/ata/ahci.ko", Depends: []string{"libahci"}},
		"libahci": {Path: "kernel/drivers/ata/libahci.ko", Depends: []string{"libata"}},
		"libata":  {Path: "kernel/drivers/ata/libata.ko"},
		"igb":     {Path: "kernel/drivers/net/ethernet/intel/igb/igb.ko"},
	}
	got := strings.Join(slices.Sorted(maps.Keys(diskDrivers(set, []string{"kernel/drivers/ata/ahci.ko"}))), " ")
	if got != "ahci libahci libata" {
		t.Errorf("got %s", got)
	}
}
