package sysdisk

import (
	"os"
	"path/filepath"
	"testing"

	"slipway/configs/disklayout"
	"slipway/configs/wipe"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/install"
)

// TestReadFound: only an installation that came to its end is gone on with.
func TestReadFound(t *testing.T) {
	whole := []string{"machine.key", "machine.crt", "ca.crt", "config.yaml", "args"}
	for name, c := range map[string]struct {
		files  []string
		record *install.Record // nil: no journal
		want   bool
		reset  wipe.How
	}{
		"nothing":                  {nil, nil, false, ""},
		"installed":                {whole, &install.Record{Operation: "install", Outcome: install.Succeeded}, true, ""},
		"all but the last note":    {whole, &install.Record{Operation: "install", Done: []string{"state", "loader"}}, true, ""},
		"no loader yet":            {whole, &install.Record{Operation: "install", Done: []string{"state", "first slot"}}, false, ""},
		"written from an image":    {whole, nil, true, ""},
		"upgraded since":           {whole, &install.Record{Operation: "upgrade", Outcome: install.FellBack}, true, ""},
		"an image nobody enrolled": {[]string{"args"}, nil, false, ""},
		"no config":                {whole[:3], nil, false, ""},
		"being reset":              {whole, &install.Record{Operation: install.ResetName, Key: "zero"}, true, wipe.Zero},
		"being reset, key wiped":   {nil, &install.Record{Operation: install.ResetName, Key: "zero"}, true, wipe.Zero},
	} {
		dir := t.TempDir()
		for _, file := range c.files {
			if err := WriteFile(filepath.Join(dir, MachineDir), file, []byte(file)); err != nil {
				t.Fatal(err)
			}
		}
		if c.record != nil {
			if err := install.File(filepath.Join(dir, install.JournalName)).Save(*c.record); err != nil {
				t.Fatal(err)
			}
		}
		got, err := readFound(dir)
		if err != nil || (got != nil) != c.want || got != nil && got.Reset != c.reset {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got != nil && got.Reset == "" && (string(got.Files["machine.key"]) != "machine.key" || got.Made.IsZero()) {
			t.Errorf("%s: it keeps %v", name, got.Files)
		}
	}
}

// TestUnreadableFound: a journal that nobody can read is no leave to write over it.
func TestUnreadableFound(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, install.JournalName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readFound(dir); err == nil {
		t.Errorf("got %+v", got)
	}
}

func TestHasExt4(t *testing.T) {
	path := filepath.Join(t.TempDir(), "part")
	data := make([]byte, 4096)
	for _, magic := range []string{"", "\x53\xef"} {
		copy(data[1080:], magic)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if hasExt4(path) != (magic != "") {
			t.Errorf("with %q where the magic number is", magic)
		}
	}
	if hasExt4(path + "x") {
		t.Error("of nothing")
	}
}

// TestOwn: a half installation is gone on with, and nobody is asked.
func TestOwn(t *testing.T) {
	ours := disk.Manifest{Disks: []disk.Target{{Path: "/dev/vda", Own: true}}}
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	claimed := disk.Disk{Path: "/dev/vda"}
	partitioned := disk.Disk{Path: "/dev/vda", Partitions: []disk.Partition{{Label: disklayout.StateLabel, Path: path}}}
	for name, d := range map[string]disk.Disk{"claimed": claimed, "partitioned": partitioned} {
		if err := (&target{Disk: &Disk{}, disk: d}).own(ours); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMeans(t *testing.T) {
	noDiscard := func(how wipe.How) error {
		if how == wipe.Discard {
			return disk.ErrNoDiscard
		}
		return nil
	}
	for said, want := range map[wipe.How]wipe.How{
		"": wipe.Metadata, wipe.Metadata: wipe.Metadata, wipe.Zero: wipe.Zero, wipe.Discard: wipe.Zero, "of tomorrow": wipe.Metadata,
	} {
		if got := means(said, noDiscard); got != want {
			t.Errorf("said %q, done %q, want %q", said, got, want)
		}
	}
}
