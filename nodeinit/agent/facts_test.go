package agent

import (
	"context"
	"io/fs"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

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

// machineOf is a machine's root in memory, with these disks; a name says what its
// serial number is.
func machineOf(serials map[string]string) fs.FS {
	root := fstest.MapFS{"proc/self/mountinfo": {}}
	for name, serial := range serials {
		dir := "sys/block/" + name + "/"
		root[dir+"size"] = &fstest.MapFile{Data: []byte("16777216")}
		root[dir+"serial"] = &fstest.MapFile{Data: []byte(serial)}
		root[dir+"device/vendor"] = &fstest.MapFile{}
	}
	return root
}

// TestFactsAreBounded: no more is told than the boot service takes, and nothing
// that cannot be told at all: a report would fail by it, again and again.
func TestFactsAreBounded(t *testing.T) {
	serials := map[string]string{}
	for n := range enroll.MaxDisks + 1 {
		serials["sd"+strconv.Itoa(n)] = "\xff1"
	}
	f := Facts(machineOf(serials))
	if len(f.Disks) != enroll.MaxDisks || f.Disks[0].Serial != "?1" {
		t.Errorf("%d disks, the first is %+v", len(f.Disks), f.Disks[0])
	}
}

// rootNow is a machine's root that changes.
type rootNow struct{ atomic.Pointer[fs.FS] }

func (r *rootNow) Open(name string) (fs.File, error) { return (*r.Load()).Open(name) }

func (r *rootNow) become(root fs.FS) { r.Store(&root) }

// TestFactsAreToldWhenTheyChange: a report has them when they are others than
// those that arrived last, and only then; a change is told within seconds.
func TestFactsAreToldWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var root rootNow
		root.become(machineOf(nil))
		server, state := &reports{}, store{dir: t.TempDir()}
		told := func() (disks []string) {
			time.Sleep(2 * heartbeat)
			synctest.Wait()
			for _, report := range server.got {
				if report.Facts == nil {
					continue
				}
				text := ""
				for _, d := range report.Facts.Disks {
					text += d.Name + "=" + d.Serial + " "
				}
				disks = append(disks, text)
			}
			server.got = nil
			return disks
		}
		check := func(when string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, told()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		start := func() func() {
			r, stop := startReporter(t, server, state)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- watchFacts(ctx, &root, r) }()
			return func() { cancel(); <-done; stop() }
		}
		stop := start()
		check("before its disks' drivers are loaded", "")
		check("nothing changed")
		root.become(machineOf(map[string]string{"vda": "1"}))
		time.Sleep(lookAtFacts)
		synctest.Wait()
		if len(server.got) == 0 || server.got[len(server.got)-1].Facts == nil {
			t.Errorf("a disk that appeared is not told at once: %v", server.got)
		}
		check("a disk appeared", "vda=1 ")
		check("nothing changed again")

		server.down.Store(true)
		root.become(machineOf(map[string]string{"vda": "2"}))
		check("swapped while the boot service is down")
		server.down.Store(false)
		check("the boot service is back", "vda=2 ")
		stop()

		stop = start()
		defer stop()
		check("another agent", "vda=2 ")
	})
}
