package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/nodeinit/disk"
)

// TestAdopt: a disk that was nobody's is its machine's, and of no other.
func TestAdopt(t *testing.T) {
	require(t, "wipefs")
	d, state := image(t), t.TempDir()
	partition(t, d, others, "", 0)
	for range 2 {
		if err := disk.Adopt(d, us, state); err != nil {
			t.Fatal(err)
		}
	}
	if len(survey(t, us, d).Foreign()) > 0 || len(survey(t, others, d).Foreign()) == 0 {
		t.Error("the disk is not its new owner's alone")
	}
	text, err := os.ReadFile(filepath.Join(state, "owner"))
	if err != nil || string(text) != "machine 52-54-00-12-34-56\ncluster prod\n" {
		t.Errorf("the state partition says %q, %v", text, err)
	}
	if err := disk.Adopt(image(t), us, state); err == nil {
		t.Error("a blank disk was adopted")
	}
}

// TestDropTable: the running system's disk loses what Slipway made, and keeps
// what it did not make.
func TestDropTable(t *testing.T) {
	require(t, "wipefs", "sfdisk")
	d := image(t)
	partition(t, d, us, "", 4*gib)
	runWith(t, "size=400M,name=volume\n", "sfdisk", "--quiet", "--append", d.Path)
	if err := (disk.Tools{}).DropTable(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	left, err := disk.Listed(d)
	if err != nil || len(left) != 1 || left[0].Label != "volume" || left[0].Number != 7 {
		t.Errorf("left are %v, %v; want the user's volume", left, err)
	}
	if text := survey(t, us, d).Text(); strings.Contains(text, "installation") || strings.Contains(text, "Slipway") {
		t.Errorf("left on the disk:\n%s", text)
	}

	d = image(t)
	partition(t, d, us, "", 0)
	if err := (disk.Tools{}).DropTable(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if m := survey(t, others, d); len(m.Foreign()) > 0 {
		t.Errorf("left on the disk:\n%s", m.Text())
	}
}
