package agent

import (
	"io/fs"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"slipway/configs/enroll"
)

// tree loads a txtar file as a machine's root.
func tree(t *testing.T, file string) fs.FS {
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

func TestFacts(t *testing.T) {
	want := enroll.Facts{
		UUID: "4c4c4544-0042-3510-8052-b4c04f4a4d32", Vendor: "Example Inc.", Product: "Server 1U", Serial: "ABC1234",
		Arch: runtime.GOARCH, Firmware: "uefi", CPUs: 2, Memory: 2035324 * 1024,
		NICs: []enroll.NIC{
			{Name: "eth0", MAC: "52:54:00:12:34:56", Driver: "virtio_net", Up: true},
			{Name: "eth1", MAC: "52:54:00:12:34:57", Driver: "igb"},
		},
		Disks: []enroll.Disk{
			{Name: "sda", Size: 4000787030016, Model: "EXAMPLE HDD", Type: "hdd", Rotational: true},
			{Name: "sdb", Size: 512000000, Model: "EXAMPLE STICK", Type: "ssd", Removable: true},
			{Name: "vda", Size: 8 << 30, Serial: "disk-1", Type: "virtual"},
			{Name: "nvme0n1", Size: 960197124096, Model: "EXAMPLE NVME", Serial: "S1", Type: "nvme"},
		},
	}
	if diff := cmp.Diff(want, Facts(tree(t, "testdata/server.txtar"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFactsOfNothing: a machine of which nothing can be read still boots.
func TestFactsOfNothing(t *testing.T) {
	want := enroll.Facts{Arch: runtime.GOARCH, Firmware: "bios"}
	if diff := cmp.Diff(want, Facts(fstest.MapFS{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
