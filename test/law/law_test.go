// Package law keeps the import law: which room may know which, and which
// package is the one door of each third-party library. Every rule carries its
// reason, and a rule that nothing could break is an error too.
package law

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A wall forbids packages below from to import packages below to.
type wall struct {
	from, to string
	except   []string // importing packages that may
	doors    []string // imported packages that anybody may use
	reason   string
}

var walls = []wall{
	{from: "configs", to: "bootsvc", reason: "configs is pure data that every room shares"},
	{from: "configs", to: "nodeinit", reason: "configs is pure data that every room shares"},
	{from: "configs", to: "controlplane", reason: "configs is pure data that every room shares"},
	{from: "configs", to: "image", reason: "configs is pure data that every room shares"},
	{from: "configs", to: "qemu", reason: "configs is pure data that every room shares"},
	{from: "bootsvc", to: "nodeinit", doors: []string{"nodeinit/api/nodev1"}, reason: "the boot service and the node meet in configs and in the generated API clients"},
	{from: "nodeinit", to: "bootsvc", doors: []string{"bootsvc/api/bootv1"}, reason: "the boot service and the node meet in configs and in the generated API clients"},
	{from: "bootsvc", to: "controlplane", doors: []string{"controlplane/pki"}, reason: "the boot service makes the cluster's keys, and knows nothing else of a control plane"},
	{from: "nodeinit", to: "controlplane", doors: []string{"controlplane/apiclient", "controlplane/pki", "controlplane/leaf"}, reason: "a worker has no control plane, it is a client of one with a certificate; cmd/init puts both together"},
	{from: "controlplane", to: "nodeinit", doors: []string{"nodeinit/supervise", "nodeinit/proc", "nodeinit/api/nodev1"}, reason: "the control plane is units and files, and answers for etcd in the node's API; how a node runs them is not its business"},
	{from: "controlplane", to: "bootsvc", doors: []string{"bootsvc/api/bootv1"}, reason: "a control plane runs without its boot service, which only lets it begin"},
	{from: "image", to: "bootsvc", reason: "the image is built from import paths, not linked"},
	{from: "image", to: "nodeinit", doors: []string{"nodeinit/slot"}, reason: "the image is built from import paths, not linked; but one code writes a boot partition, in a raw image as on a node"},
	{from: "image", to: "controlplane", reason: "the image is built from import paths, not linked"},
	{from: "image", to: "qemu", reason: "the image is built from import paths, not linked"},
	{from: "qemu", to: "bootsvc", reason: "the lab is machines and wires; cmd/slipway tells it what to run"},
	{from: "qemu", to: "nodeinit", reason: "the lab is machines and wires; cmd/slipway tells it what to run"},
	{from: "qemu", to: "controlplane", reason: "the lab is machines and wires; cmd/slipway tells it what to run"},
	{from: "qemu", to: "image", reason: "the lab is machines and wires; cmd/slipway tells it what to run"},
	{from: "qemu", to: "configs", reason: "the lab is machines and wires; cmd/slipway tells it what to run"},
}

// A door names the only packages that may import a library.
type door struct {
	library string
	through []string
	reason  string
}

var libraryDoors = []door{
	{"github.com/vishvananda/netlink", []string{"nodeinit/netconf", "nodeinit/worker"}, "one place speaks netlink to the kernel"},
	{"github.com/coreos/go-iptables", []string{"nodeinit/worker"}, "one place changes packet filters"},
	{"github.com/insomniacslk/dhcp", []string{"bootsvc/dhcp", "bootsvc/firmware", "nodeinit/netconf"}, "packets are values of our own everywhere else"},
	{"github.com/pin/tftp", []string{"bootsvc/tftp"}, "packets are values of our own everywhere else"},
	{"github.com/containerd/containerd", []string{"nodeinit/worker"}, "one place speaks to the container runtime"},
	{"go.etcd.io/etcd/server", []string{"bootsvc/store", "controlplane/etcd"}, "the store's server is nobody else's business"},
	{"go.etcd.io/bbolt", []string{"bootsvc/snapshot"}, "one place looks into files that are etcd's own"},
	{"github.com/containerd/go-dmverity", []string{"nodeinit/early", "image"}, "one place speaks to the device mapper, and one makes hash trees"},
	{"github.com/diskfs/go-diskfs", []string{"nodeinit/disk", "image/media"}, "one place writes to a machine's disks, and one makes media; both by configs/disklayout"},
	{"k8s.io/client-go", []string{"controlplane", "cmd/slipway"}, "init must stay small"},
}

func TestRoomsKeepApart(t *testing.T) {
	imports := ourImports(t)
	for _, w := range walls {
		if !hasRoom(imports, w.from) || !hasRoom(imports, w.to) {
			t.Errorf("wall %s -> %s: one of the rooms is gone; remove the rule", w.from, w.to)
		}
		for pkg, uses := range imports {
			if !within(pkg, w.from) || anyWithin(pkg, w.except) {
				continue
			}
			for _, use := range uses {
				if within(use, w.to) && !anyWithin(use, w.doors) {
					t.Errorf("%s imports %s: %s", pkg, use, w.reason)
				}
			}
		}
	}
}

func TestNobodyImportsTests(t *testing.T) {
	for pkg, uses := range ourImports(t) {
		for _, use := range uses {
			if within(use, "test") && !within(pkg, "test") {
				t.Errorf("%s imports %s: nothing that ships depends on tests", pkg, use)
			}
		}
	}
}

func TestLibrariesHaveOneDoor(t *testing.T) {
	imports := ourImports(t)
	for _, d := range libraryDoors {
		for pkg, uses := range imports {
			if anyWithin(pkg, d.through) || within(pkg, "test") {
				continue
			}
			for _, use := range uses {
				if strings.HasPrefix(use, d.library) {
					t.Errorf("%s imports %s: only %s may, since %s", pkg, use, strings.Join(d.through, ", "), d.reason)
				}
			}
		}
	}
}

// ourImports maps each package of this module, by its path below the module,
// to what it imports outside of tests; packages of this module shortened alike.
func ourImports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "slipway/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	imports := map[string][]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return imports
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for i := range p.Imports {
			p.Imports[i] = strings.TrimPrefix(p.Imports[i], "slipway/")
		}
		imports[strings.TrimPrefix(p.ImportPath, "slipway/")] = p.Imports
	}
}

func within(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

func anyWithin(pkg string, rooms []string) bool {
	return slices.ContainsFunc(rooms, func(room string) bool { return within(pkg, room) })
}

func hasRoom(imports map[string][]string, room string) bool {
	for pkg := range imports {
		if within(pkg, room) {
			return true
		}
	}
	return false
}
