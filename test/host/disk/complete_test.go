package disk

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
	"slipway/test/need"
)

// TestComplete: a disk that a raw image was written to, and that the machine
// runs from, gets what the image has not.
func TestComplete(t *testing.T) {
	need.Programs(t, "wipefs", "mke2fs", "e2fsck", "sfdisk", "partx", "blkid", "mount")
	d := sized(t, 2*gib)
	script := "label: gpt\n"
	for _, p := range disklayout.System()[:4] {
		script += fmt.Sprintf("start=%d,size=%d,type=%s,name=%s\n", p.Start/512, p.Size/512, p.Type, p.Label)
	}
	runWith(t, script, "sfdisk", "--quiet", d.Path)
	if err := os.Truncate(d.Path, diskSize); err != nil { // a disk is larger than the image
		t.Fatal(err)
	}
	d.Size = diskSize
	d = attach(t, d, "512")
	run(t, "partx", "--update", d.Path)
	run(t, "mke2fs", "-q", d.Path+"p3")
	root := t.TempDir()
	run(t, "mount", d.Path+"p3", root)
	t.Cleanup(func() { run(t, "umount", root) })

	made, err := disk.Tools{}.Complete(t.Context(), d, 4*gib)
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, p := range made {
		run(t, "e2fsck", "-f", "-n", p.Path)
		labels = append(labels, strings.TrimSpace(run(t, "blkid", "--probe", "--output", "value", "--match-tag", "LABEL", p.Path)))
	}
	if data := made[len(made)-1]; data.Size != 4*gib {
		t.Errorf("the data partition is %+v", data)
	}
	if diff := cmp.Diff([]string{disklayout.StateLabel, disklayout.DataLabel}, labels); diff != "" {
		t.Errorf("file systems (-want +got):\n%s", diff)
	}
	if out := run(t, "sfdisk", "--verify", d.Path); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk: %s", out)
	}
	if again, err := (disk.Tools{}).Complete(t.Context(), d, 0); err != nil || len(again) > 0 {
		t.Errorf("the second time it made %v, %v", again, err)
	}
}

// TestCompleteStranger: a disk that is not Slipway's is left as it is.
func TestCompleteStranger(t *testing.T) {
	if made, err := (disk.Tools{}).Complete(t.Context(), image(t), 0); err == nil {
		t.Errorf("made %v on a blank disk", made)
	}
}
