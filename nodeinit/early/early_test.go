package early

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestApplyGoesOnAfterAnError(t *testing.T) {
	root := t.TempDir()
	err := apply(quiet(), []action{
		set{root + "/missing", "1"},
		optional{set{root + "/missing", "1"}},
		dir{root + "/made", 0o777 | fs.ModeSticky},
	})
	if !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "missing to 1") != 1 {
		t.Errorf("got %v", err)
	}
	info, err := os.Stat(root + "/made")
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeDir|fs.ModeSticky|fs.ModePerm {
		t.Errorf("mode %s", info.Mode())
	}
}

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "etc")
	os.MkdirAll(from+"/ssl", 0o750)
	os.WriteFile(from+"/passwd", []byte("root"), 0o644)
	os.WriteFile(from+"/ssl/key", []byte("secret"), 0o600)
	os.Symlink("passwd", from+"/link")
	for range 2 { // it may be repeated
		if err := (copyTree{from, to}).do(); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	filepath.WalkDir(to, func(path string, e fs.DirEntry, _ error) error {
		info, _ := e.Info()
		text, _ := os.ReadFile(path)
		rel, _ := filepath.Rel(to, path)
		got[rel] = info.Mode().String() + " " + string(text)
		return nil
	})
	want := map[string]string{
		".": "drwx------ ", "ssl": "drwxr-x--- ", "ssl/key": "-rw------- secret",
		"passwd": "-rw-r--r-- root", "link": "Lrwxrwxrwx root",
	}
	want["."] = got["."] // the test's own folder
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMachineID(t *testing.T) {
	root := t.TempDir()
	id := func(board string) string {
		t.Helper()
		if err := os.WriteFile(root+"/board", []byte(board), 0o644); err != nil {
			t.Fatal(err)
		}
		os.Remove(root + "/id")
		if err := writeMachineID(root+"/board", root+"/id"); err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(root + "/id")
		if len(text) != 33 || strings.Trim(string(text[:32]), "0123456789abcdef") != "" {
			t.Errorf("not a machine ID: %q", text)
		}
		return string(text)
	}
	const board = "4C4C4544-0042-3510-8053-B4C04F4D4D32\n"
	if id(board) != id(strings.ToLower(board)) {
		t.Error("the same machine has two IDs")
	}
	for _, bad := range []string{
		"", "Not Settable", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
		"03000200-0400-0500-0006-000700080009",
	} {
		if first, second := id(bad), id(bad); first == second {
			t.Errorf("%q was taken for a machine's own UUID", bad)
		}
	}
}

func TestEnabling(t *testing.T) {
	for have, want := range map[string]string{
		"": "",
		"cpuset cpu io memory hugetlb pids rdma misc": "+cpu +cpuset +io +memory +pids +hugetlb",
		"memory pids": "+memory +pids",
	} {
		if got := enabling(strings.Fields(have)); got != want {
			t.Errorf("%q: got %q, want %q", have, got, want)
		}
	}
}

func TestLoadOrdered(t *testing.T) {
	root := t.TempDir()
	if err := loadOrdered(root); err != nil {
		t.Errorf("nothing to load: %v", err)
	}
	os.WriteFile(root+"/order", []byte("loop.ko\nsquashfs.ko\n"), 0o644)
	err := loadOrdered(root)
	if err == nil || !strings.HasPrefix(err.Error(), "load module loop.ko: open ") {
		t.Errorf("got %v", err)
	}
}

// TestTables keeps the order that mounts need: nothing is made in a folder
// before the file system that will be there.
func TestTables(t *testing.T) {
	t.Run("from RAM", func(t *testing.T) { checkOrder(t, slices.Concat(kernelMounts, nodeMounts, varMounts(Booted{}))) })
	t.Run("from a slot", func(t *testing.T) {
		checkOrder(t, slices.Concat(kernelMounts, nodeMounts, stateMount("vda"), varMounts(Booted{"a", "vda"})))
	})
}

// TestOnDisk: a state partition that is not there is not said to be mounted.
func TestOnDisk(t *testing.T) {
	var did []string
	steps := DiskSteps{
		Complete: func(b Booted) error { did = append(did, "complete "+b.Disk); return nil },
		Mounted:  func(Booted) { did = append(did, "mounted") },
	}
	log := slog.New(slog.DiscardHandler)
	if err := (Booted{}).onDisk(log, steps); err != nil || did != nil {
		t.Errorf("from RAM: %v, %q", err, did)
	}
	if err := (Booted{"a", "no-such-disk"}).onDisk(log, steps); err == nil || !slices.Equal(did, []string{"complete no-such-disk"}) {
		t.Errorf("without its disk: %v, %q", err, did)
	}
}

func checkOrder(t *testing.T, actions []action) {
	t.Helper()
	var mounted []string
	for _, a := range actions {
		if o, ok := a.(optional); ok {
			a = o.action
		}
		if v, ok := a.(volume); ok {
			a = mount{target: v.target}
		}
		path := ""
		switch a := a.(type) {
		case mount:
			for _, earlier := range mounted {
				if strings.HasPrefix(earlier, a.target+"/") {
					t.Errorf("%s hides %s", a, earlier)
				}
			}
			mounted = append(mounted, a.target)
			continue
		case dir:
			path = a.path
		case link:
			path = a.path
		case copyTree:
			path = a.to
		default:
			continue
		}
		writable := false
		for _, m := range mounted {
			writable = writable || path == m || strings.HasPrefix(path, m+"/")
		}
		if !writable {
			t.Errorf("%s: nothing writable is mounted there yet", a)
		}
	}
}
