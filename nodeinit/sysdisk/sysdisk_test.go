package sysdisk

import (
	"bytes"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/configs/wipe"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/slot"
)

func TestSummary(t *testing.T) {
	both := []Image{{"a", "1.0", "aa", "v1.37.0"}, {"b", "2.0", "bb", "v1.38.0"}}
	for _, tt := range []struct {
		name   string
		slots  slot.Slots
		booted disklayout.Slot
		want   State
		next   disklayout.Slot
	}{
		{"just installed", slot.Slots{A: slot.Good, B: slot.Empty, Next: "a"}, "a", State{Good: "a", Slots: both[:1]}, "a"},
		{"two that work", slot.Slots{A: slot.Good, B: slot.Good, Next: "b"}, "b", State{Good: "b", Slots: both}, "b"},
		{"to be tried", slot.Slots{A: slot.Good, B: slot.Trying, Next: "b"}, "a", State{Good: "a", Trying: "b", Tries: 1, Slots: both}, "b"},
		{"on trial", slot.Slots{A: slot.Good, B: slot.Failed, Next: "a"}, "b", State{Good: "a", Trying: "b", Slots: both}, "a"},
		{"came back", slot.Slots{A: slot.Good, B: slot.Failed, Next: "a"}, "a", State{Good: "a", Slots: both}, "a"},
	} {
		got := summary(State{Slots: both}, tt.slots, tt.booted)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if got.ToBoot() != tt.next {
			t.Errorf("%s: %s boots next, want %s", tt.name, got.ToBoot(), tt.next)
		}
	}
}

func TestImages(t *testing.T) {
	dir := t.TempDir()
	if list, err := readImages(dir); list != nil || err != nil {
		t.Errorf("none yet: %v, %v", list, err)
	}
	for _, images := range [][]Image{{{"a", "1.0", "aa", ""}}, {{"b", "1.1", "bb", "v1.37.1"}, {"a", "1.2", "cc", "v1.38.0"}}} {
		if err := keepImages(dir, images...); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readImages(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Image{{"b", "1.1", "bb", "v1.37.1"}, {"a", "1.2", "cc", "v1.38.0"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestDigest: other files, or the same under other names, are another installation.
func TestDigest(t *testing.T) {
	sums := []string{
		digest(nil), digest(map[string][]byte{"key": []byte("1")}), digest(map[string][]byte{"key": []byte("2")}),
		digest(map[string][]byte{"crt": []byte("1")}), digest(map[string][]byte{"key": []byte("1"), "crt": nil}),
	}
	slices.Sort(sums)
	if len(slices.Compact(sums)) != 5 {
		t.Error("two sets of files have the same digest")
	}
}

func TestRule(t *testing.T) {
	if got := rule(machine.Disk{Word: machine.AnyDisk}); got != (disk.Rule{}) {
		t.Errorf("any: %+v", got)
	}
	got := rule(machine.Disk{Rule: &machine.DiskRule{Path: "/dev/sda", Serial: "s", WWN: "w", Model: "m*", Type: machine.SSD, MinSize: 6 * machine.GiB, MaxSize: 7 * machine.GiB}})
	want := disk.Rule{Path: "/dev/sda", Serial: "s", WWN: "w", Model: "m*", Type: disk.SSD, MinSize: 6 << 30, MaxSize: 7 << 30}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDataSize(t *testing.T) {
	for cmdline, want := range map[string]int64{
		"console=ttyS0 slipway.root-size=8192\n": 0, "quiet slipway.data-size=20GiB\n": 20 << 30,
		"slipway.data-size=5GiB slipway.data-size=4294967296": 4 << 30, "slipway.data-size=much": -1,
	} {
		got, err := dataSize(cmdline)
		if (err == nil) != (want >= 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v; want %d", cmdline, got, err, want)
		}
	}
}

func TestCheckData(t *testing.T) {
	d := disk.Disk{Partitions: []disk.Partition{{Label: disklayout.StateLabel, Size: 1}, {Label: disklayout.DataLabel, Size: 10 << 30}}}
	for want, text := range map[machine.Size]string{
		0: "", 10 * machine.GiB: "", 10*machine.GiB + 4097: "",
		5 * machine.GiB: "the data partition has 10GiB, its config wants 5GiB: it stays as it was made",
	} {
		if err := checkData(d, want); (err == nil) != (text == "") || err != nil && err.Error() != text {
			t.Errorf("%s: %v, want %q", want, err, text)
		}
	}
}

func TestWipeRefused(t *testing.T) {
	if _, err := Wipe("", wipe.Metadata); err != ErrFromRAM {
		t.Errorf("got %v", err)
	}
}

// bootFiles is a boot partition in memory.
type bootFiles map[string][]byte

func (b bootFiles) List(dir string) (names []string, _ error) {
	for name := range b {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			names = append(names, rest)
		}
	}
	return names, nil
}

func (b bootFiles) ReadFile(name string) ([]byte, error) {
	if data, ok := b[name]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (bootFiles) Create(string, int64, io.Reader) error { return fs.ErrPermission }
func (bootFiles) Rename(string, string) error           { return fs.ErrPermission }
func (bootFiles) Remove(string) error                   { return fs.ErrPermission }

func TestSeparateKernel(t *testing.T) {
	boot := bootFiles{
		"/slipway/b/kernel": []byte("kernel"), "/slipway/b/initramfs": []byte("initramfs"),
		"/slipway/b/arguments": disklayout.GRUBArguments("console=ttyS0 slipway.root=00\n"),
	}
	got, err := separate(boot, "b")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Image, []byte("kernel")) || !bytes.Equal(got.Initramfs, []byte("initramfs")) || got.Arguments != "console=ttyS0 slipway.root=00" {
		t.Errorf("got %+v", got)
	}
	if _, err := separate(boot, "a"); err == nil {
		t.Error("an empty slot has a kernel")
	}
}

func TestKernelImage(t *testing.T) {
	for name, want := range map[string]disklayout.Slot{
		"slipway-a.efi": "a", "slipway-a+1.efi": "a", "SLIPWAY-B+0-1.EFI": "b", "slipway-ab.efi": "", "slipway-a.efi.old": "",
	} {
		boot := bootFiles{"/EFI/Linux/" + name: nil}
		for _, n := range []disklayout.Slot{"a", "b"} {
			got, err := kernelImage(boot, n)
			if (err == nil) != (n == want) || err == nil && got != "/EFI/Linux/"+name {
				t.Errorf("%s as the image of %s: %q, %v", name, n, got, err)
			}
		}
	}
}
