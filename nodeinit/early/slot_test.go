package early

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/containerd/go-dmverity/pkg/verity"
	"github.com/google/go-cmp/cmp"

	"slipway/configs/disklayout"
)

const rootHash = "5b6fa1f4d2a5c0ad1f2b21d1b4d0a9c35ab8b1a2f4efc7a8f0de5c1af5c7e001"

func TestWantedRoot(t *testing.T) {
	hash, _ := hex.DecodeString(rootHash)
	for _, tt := range []struct {
		cmdline string
		want    *rootWanted
		err     string
	}{
		{"console=ttyS0 slipway.server=https://10.0.0.1:8443", nil, ""},
		{"slipway.root=" + rootHash + " slipway.root-size=8192", &rootWanted{hash, 8192, "", ""}, ""},
		{"slipway.root=" + rootHash + " slipway.root-size=8192 slipway.slot=b\n", &rootWanted{hash, 8192, "b", ""}, ""},
		{"slipway.root=" + rootHash + " slipway.root-size=8192 slipway.slot=a slipway.boot=0A1B", &rootWanted{hash, 8192, "a", "0a1b"}, ""},
		{"slipway.root=" + rootHash + " slipway.root-size=8192 slipway.slot=a slipway.boot=", &rootWanted{hash, 8192, "a", ""}, ""}, // GRUB could not tell
		{"slipway.root=" + rootHash[:62] + " slipway.root-size=8192", nil, "is not a SHA-256"},
		{"slipway.root=" + rootHash, nil, `slipway.root-size=""`},
		{"slipway.root=" + rootHash + " slipway.root-size=8193", nil, "a multiple of 4096"},
		{"slipway.root=" + rootHash + " slipway.root-size=-4096", nil, "a multiple of 4096"},
	} {
		got, err := wantedRoot(tt.cmdline)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(rootWanted{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.cmdline, diff)
		}
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: error %v, want %q", tt.cmdline, err, tt.err)
		}
	}
}

// verityFile writes a slot of random data with its hash tree.
func verityFile(t *testing.T, path string, salt []byte) *rootWanted {
	t.Helper()
	data := make([]byte, 600*verityBlock) // two levels of hashes above one
	rand.Read(data)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	params := verity.DefaultParams()
	params.DataBlockSize, params.HashBlockSize, params.DataBlocks = verityBlock, verityBlock, 600
	params.Salt, params.SaltSize, params.HashAreaOffset = salt, uint16(len(salt)), uint64(len(data))
	params.UUID[0] = 1
	hash, err := verity.Create(&params, path, path)
	if err != nil {
		t.Fatal(err)
	}
	return &rootWanted{hash: hash, size: int64(len(data))}
}

func TestFindSlot(t *testing.T) {
	dir := t.TempDir()
	first := verityFile(t, dir+"/first", nil)
	second := verityFile(t, dir+"/second", []byte("salt"))
	damaged := filepath.Join(dir, "damaged")
	text, _ := os.ReadFile(dir + "/first")
	text[first.size+verityBlock] ^= 1
	os.WriteFile(damaged, text, 0o600)
	empty := filepath.Join(dir, "empty")
	os.WriteFile(empty, make([]byte, len(text)), 0o600)
	a := func(file string) partition {
		return partition{"vda3", filepath.Join(dir, filepath.Base(file)), "slipway-a", "vda"}
	}
	b := func(file string) partition {
		return partition{"vda4", filepath.Join(dir, filepath.Base(file)), "slipway-b", "vda"}
	}
	other := func(file string) partition {
		return partition{"vdb3", filepath.Join(dir, filepath.Base(file)), "slipway-a", "vdb"}
	}
	for _, tt := range []struct {
		name  string
		slots []partition
		want  rootWanted
		slot  disklayout.Slot
		found string
		why   string
	}{
		{"no disk", nil, *first, "", "", "no such partition"},
		{"other partitions", []partition{{"sda1", dir + "/first", "root", "sda"}}, *first, "", "", "no such partition"},
		{"in a", []partition{a("first"), b("second")}, *first, "", "vda3", ""},
		{"in b, salted", []partition{a("first"), b("second")}, *second, "", "vda4", ""},
		{"in b, though the loader says a", []partition{a("first"), b("second")}, *second, "a", "vda4", ""},
		{"in both", []partition{a("first"), b("first")}, *first, "", "vda3", ""},
		{"in both, the loader says b", []partition{a("first"), b("first")}, *first, "b", "vda4", ""},
		{"damaged", []partition{a("damaged"), b("second")}, *first, "", "", "another image, or damage"},
		{"empty", []partition{a("empty")}, *first, "", "", "another image, or none"},
		{"too short", []partition{a("first")}, rootWanted{hash: first.hash, size: 1 << 30}, "", "", "read the hash area"},
		{"on two disks", []partition{a("first"), other("first")}, *first, "a", "", "take one of vda and vdb out"},
		{"on two disks, of which one is damaged", []partition{other("damaged"), a("first")}, *first, "a", "vda3", ""},
		{"the disk is gone", []partition{a("nowhere")}, *first, "", "", "slipway-a on vda3: open "},
	} {
		want := tt.want
		want.slot = tt.slot
		got, _, why := findSlot(tt.slots, &want)
		if got.name != tt.found {
			t.Errorf("%s: found %q, want %q", tt.name, got.name, tt.found)
		}
		if tt.why != "" && !strings.Contains(why.Error(), tt.why) {
			t.Errorf("%s: %v, want %q", tt.name, why, tt.why)
		}
	}
}

// TestFromDisk: of two disks with an installation the one is left that the loader came from.
func TestFromDisk(t *testing.T) {
	list := []partition{
		{"sda2", "/dev/sda2", "slipway-boot", "sda"}, {"sda3", "/dev/sda3", "slipway-a", "sda"},
		{"sdb2", "/dev/sdb2", "slipway-boot", "sdb"}, {"sdb3", "/dev/sdb3", "slipway-a", "sdb"},
		{"sdc2", "/dev/sdc2", "slipway-boot", "sdc"},
	}
	guids := func(disk string) (string, error) {
		if disk == "sdc" {
			return "", errors.New("sdc does not answer")
		}
		return map[string]string{"sda": "01", "sdb": "02"}[disk], nil
	}
	for guid, want := range map[string][]partition{"": list, "01": list[:2], "02": list[2:4], "03": nil} {
		got, err := fromDisk(list, guid, guids)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(partition{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", guid, diff)
		}
		if gone := err != nil && strings.Contains(err.Error(), "none has the boot partition 03") && strings.Contains(err.Error(), "sdc does not answer"); gone != (guid == "03") {
			t.Errorf("%q: error %v", guid, err)
		}
	}
}

func TestEntrySlot(t *testing.T) {
	for name, want := range map[string]disklayout.Slot{
		"slipway-a.efi\x00": "a", "slipway-b+0-1.efi\x00": "b", "slipway-b+3.efi": "b", "Slipway-A.efi": "a",
		"auto-windows": "", "": "", "slipway-c.efi": "",
	} {
		variable := []byte{6, 0, 0, 0}
		for _, unit := range utf16.Encode([]rune(name)) {
			variable = binary.LittleEndian.AppendUint16(variable, unit)
		}
		if got := entrySlot(loaderText(variable)); got != want {
			t.Errorf("%q: slot %q, want %q", name, got, want)
		}
	}
	if loaderText(nil) != "" || entrySlot("") != "" {
		t.Error("a variable that is not there names a slot")
	}
}

// fakeSys is a sysfs with one disk of two labelled partitions, the first of
// which is below device 254:0, and one without labels.
func fakeSys(t *testing.T) string {
	t.Helper()
	sys := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, event := range map[string]string{
		"vda": "DEVNAME=vda\nDEVTYPE=disk\n", "vda/vda1": "DEVNAME=vda1\nDEVTYPE=partition\nPARTNAME=slipway-bios\n",
		"vda/vda3": "DEVNAME=vda3\nDEVTYPE=partition\nPARTNAME=slipway-a\n", "sda/sda1": "DEVNAME=sda1\nDEVTYPE=partition\n",
	} {
		write("devices/block/"+name+"/uevent", "MAJOR=1\nMINOR=2\n"+event)
		link := filepath.Join(sys, "class/block", filepath.Base(name))
		os.MkdirAll(filepath.Dir(link), 0o755)
		if err := os.Symlink("../../devices/block/"+name, link); err != nil {
			t.Fatal(err)
		}
	}
	write("dev/block/254:0/slaves/vda3", "")
	write("dev/block/7:0/size", "")
	return sys
}

func TestPartitions(t *testing.T) {
	sys := fakeSys(t)
	want := []partition{{"vda1", "/dev/vda1", "slipway-bios", "vda"}, {"vda3", "/dev/vda3", "slipway-a", "vda"}}
	got := partitions(sys)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(partition{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, ok := labelled(got, "sda", "slipway-a"); ok {
		t.Error("a partition of another disk was taken")
	}
}

func TestBootedFrom(t *testing.T) {
	sys := fakeSys(t)
	for number, want := range map[uint64]Booted{254 << 8: {"a", "vda"}, 7 << 8: {}, 0: {}} {
		if got := bootedFrom(sys, number); got != want {
			t.Errorf("root on %#x: %+v, want %+v", number, got, want)
		}
	}
}

func TestCorrupted(t *testing.T) {
	for status, want := range map[string]bool{"V": false, "C": true, "C -": true} {
		if got, err := corrupted(status); got != want || err != nil {
			t.Errorf("%q: %v, %v", status, got, err)
		}
	}
	if _, err := corrupted(""); err == nil {
		t.Error("no status is no error")
	}
}
