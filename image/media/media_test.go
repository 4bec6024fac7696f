package media

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/go-cmp/cmp"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot"
	"slipway/nodeinit/slot/fat"
	"slipway/test/need"
)

// artifact gives every artifact a content that tells which it is.
func artifact(name string) ([]byte, error) {
	if name == "missing" {
		return nil, os.ErrNotExist
	}
	return bytes.Repeat([]byte(name+" "), 600), nil
}

func makeRaw(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := Raw(f, "0123", artifact); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRaw(t *testing.T) {
	f := makeRaw(t)
	read, err := gpt.Read(f, 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, p := range read.Partitions {
		if p.Size > 0 {
			got = append(got, fmt.Sprint(p.Name, p.Type, p.Start, p.Size))
		}
	}
	for _, p := range disklayout.System()[:4] {
		want = append(want, fmt.Sprint(p.Label, gpt.Type(p.Type), p.Start/512, p.Size))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	boot, err := fat.Open(section{f, disklayout.System()[1].Start})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []slot.Loader{slot.SystemdBoot{Boot: boot}, slot.GRUB{Boot: boot, Disk: section{f, 0}}} {
		slots, err := l.Read()
		if want := (slot.Slots{A: slot.Good, B: slot.Empty, Next: disklayout.SlotA}); err != nil || slots != want {
			t.Errorf("%T: slots are %+v, %v; want %+v", l, slots, err, want)
		}
	}
	for _, name := range []string{disklayout.RemovableLoader, disklayout.SlotA.UKI(), disklayout.SlotA.Kernel(), disklayout.GRUBConfig} {
		if _, err := boot.ReadFile(name); err != nil {
			t.Errorf("read %s: %v", name, err)
		}
	}
	for name, at := range map[string]int64{"root.img": disklayout.System()[2].Start, "loaders/grub/core.img": disklayout.MiB, "loaders/grub/boot.img": 0} {
		if data := readAt(t, f, at, len(name)); string(data) != name {
			t.Errorf("at %d is %q, want %q", at, data, name)
		}
	}
}

// TestRawIsReproducible compares all places that are written.
func TestRawIsReproducible(t *testing.T) {
	a, b := makeRaw(t), makeRaw(t)
	end := disklayout.System()[3].End()
	for _, part := range [][2]int64{{0, 40 * disklayout.MiB}, {disklayout.System()[2].Start, disklayout.MiB}, {end, disklayout.MiB}} {
		if !bytes.Equal(readAt(t, a, part[0], int(part[1])), readAt(t, b, part[0], int(part[1]))) {
			t.Errorf("the images differ between %d and %d", part[0], part[0]+part[1])
		}
	}
}

func TestRawNamesWhatIsMissing(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = Raw(f, "0123", func(name string) ([]byte, error) {
		if name == "uki.efi" {
			return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
		}
		return artifact(name)
	})
	if err == nil || !strings.Contains(err.Error(), "open uki.efi") {
		t.Errorf("error is %v", err)
	}
}

func TestISO(t *testing.T) {
	need.Programs(t, "xorriso")
	grub := CDLoader{Image: bytes.Repeat([]byte("g"), 40<<10), Hybrid: bytes.Repeat([]byte("h"), 512)}
	var images [2][]byte
	for i := range images {
		out := filepath.Join(t.TempDir(), "slipway.iso")
		if err := ISO(t.Context(), out, "quiet slipway.server=https://10.0.0.1:8443", grub, artifact); err != nil {
			t.Fatal(err)
		}
		var err error
		if images[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two images of the same differ")
	}
	for _, want := range []string{"EL TORITO SPECIFICATION", "linux (boot)/kernel quiet slipway.server", "options quiet slipway.server", "SLIPWAY_ISO", "EFI PART"} {
		if !bytes.Contains(images[0], []byte(want)) {
			t.Errorf("the image does not hold %q", want)
		}
	}
	if string(images[0][:3]) != "hhh" {
		t.Error("the image does not begin with the loader for sticks")
	}
}

func readAt(t *testing.T, f *os.File, at int64, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	if _, err := f.ReadAt(data, at); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return data
}
