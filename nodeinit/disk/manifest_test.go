package disk

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

func TestManifestText(t *testing.T) {
	m := Manifest{Disks: []Target{
		{Path: "/dev/sda", Model: "EXAMPLE SSD", Serial: "S1", WWN: "naa.5000c500a1b2c3d4", Size: 480 * gb, Found: []Signature{
			{Kind: "Slipway", Label: "lab", UUID: "AA"},
			{Kind: "GPT", UUID: "aa"},
			{Partition: 1, Name: "EFI System", Kind: "FAT", Label: "EFI", UUID: "1234-ABCD"},
			{Partition: 2, Kind: "ext4", Label: "two\nlines"},
		}},
		{Path: "/dev/vda", Size: 20 * gb, Own: true},
	}}
	const want = `wipe manifest 1
disk 480000000000 bytes model "EXAMPLE SSD" serial "S1" wwn "naa.5000c500a1b2c3d4"
  whole disk: Slipway of cluster "lab" uuid "AA"
  whole disk: GPT uuid "aa"
  partition 1 named "EFI System": FAT label "EFI" uuid "1234-ABCD"
  partition 2: ext4 label "two\nlines"
disk 20000000000 bytes path "/dev/vda"
  an installation of this machine and cluster
`
	if diff := cmp.Diff(want, m.Text()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	const hash = "50a12c1f3a0df8cf0eff7fa82df2b6bca57c29a5566f88cf30c6f595c5139026"
	if got := m.Hash(); got != hash {
		t.Errorf("the hash is %s, want %s: manifests that people agreed to are no longer valid", got, hash)
	}
}

// TestAgreed: of a disk that is not as it was, nothing is agreed to.
func TestAgreed(t *testing.T) {
	of := func(change func(*Target)) Manifest {
		d := Target{Path: "/dev/sda", Serial: "S1", Size: 480 * gb, Found: []Signature{{Partition: 1, Kind: "xfs", UUID: "1"}}}
		change(&d)
		return Manifest{Disks: []Target{d}}
	}
	agreed := of(func(*Target) {}).Hash()
	for _, tt := range []struct {
		name   string
		change func(*Target)
		hash   string
		ok     bool
	}{
		{"as it was", func(*Target) {}, agreed, true},
		{"another name after a boot", func(d *Target) { d.Path = "/dev/sdb" }, agreed, true},
		{"nobody agreed", func(*Target) {}, "", false},
		{"another file system", func(d *Target) { d.Found[0].UUID = "2" }, agreed, false},
		{"one more", func(d *Target) { d.Found = append(d.Found, Signature{Partition: 2, Kind: "swap"}) }, agreed, false},
		{"another disk", func(d *Target) { d.Serial = "S2" }, agreed, false},
		{"another size", func(d *Target) { d.Size++ }, agreed, false},
		{"blank", func(d *Target) { d.Found = nil }, "", true},
		{"blank since", func(d *Target) { d.Found = nil }, agreed, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Agreed(of(tt.change), tt.hash)
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrNotAgreed) {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	err := Agreed(Manifest{Disks: []Target{{Found: make([]Signature, 9)}}}, "")
	if err == nil || !strings.HasSuffix(err.Error(), "and 5 more") {
		t.Errorf("got %v, want the rest counted", err)
	}
}

// TestWipefs reads what wipefs printed for disks that were made by the programs
// of their owners, and what becomes of it in a manifest.
func TestWipefs(t *testing.T) {
	a, err := txtar.ParseFile("testdata/wipefs.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(a.Files); i += 2 {
		input, want := a.Files[i], a.Files[i+1]
		t.Run(input.Name, func(t *testing.T) {
			marks, err := parseMarks(input.Data)
			if err != nil {
				t.Fatal(err)
			}
			d := Disk{Path: "/dev/sda", Partitions: []Partition{{Path: "/dev/sda1", Number: 1}, {Path: "/dev/sda12", Number: 12}}}
			var lines []string
			for _, s := range (finding{marks: marks}).signatures(d) {
				lines = append(lines, s.String()+"\n")
			}
			if diff := cmp.Diff(string(want.Data), strings.Join(lines, "")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWipefsBroken(t *testing.T) {
	for _, text := range []string{
		"sda: probing failed",
		`{"signatures": [{"device": "sda", "offset": "here", "length": 2, "type": "ext4"}]}`,
		`{"signatures": [{"device": "sda", "offset": "0x438", "length": 0, "type": "ext4"}]}`,
	} {
		if marks, err := parseMarks([]byte(text)); err == nil {
			t.Errorf("%s: got %v", text, marks)
		}
	}
}

func TestOwner(t *testing.T) {
	o := Owner{Machine: "52-54-00-12-34-56", Cluster: "prod"}
	const want = "0BC965AB-A178-8FBF-BBA4-E02EB510BCBA"
	if got := o.guid(); got != want {
		t.Errorf("the GUID is %s, want %s: installed machines would not know their disks", got, want)
	}
	if back := parseOwner(o.text()); back != o {
		t.Errorf("read back as %+v", back)
	}
	if o.guid() == (Owner{Machine: o.Machine, Cluster: "lab"}).guid() {
		t.Error("two clusters have one GUID")
	}
	if o := parseOwner("what\nis this"); o != (Owner{}) {
		t.Errorf("read %+v from nothing", o)
	}
}
