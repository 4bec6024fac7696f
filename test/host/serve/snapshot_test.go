package serve

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFromASnapshotToItsRestore takes a snapshot of a machine's real etcd, to a
// file and to the boot service, breaks copies of it, and restores it: the
// machine gets exactly the bytes that were taken.
func TestFromASnapshotToItsRestore(t *testing.T) {
	r := newRack(t)
	service, node := r.demo()
	file := filepath.Join(t.TempDir(), "demo.db")
	taken := r.slipway(0, "cluster", "snapshot", "demo", "--file", file)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	for _, want := range []string{"demo-20", " 101 ", "admin", fmt.Sprintf("%.12x", sum)} {
		if !strings.Contains(taken, want) {
			t.Errorf("%q is not in what was printed\n%s", want, taken)
		}
	}
	r.restart(service)
	if list := r.slipway(0, "cluster", "snapshots"); !strings.Contains(list, fmt.Sprintf("%.12x", sum)) {
		t.Errorf("after the restart these are kept\n%s", list)
	}
	r.refuses(file, data)
	if out := r.slipway(1, "cluster", "recover", "demo", "--yes"); !strings.Contains(out, "nothing to recover") {
		t.Errorf("the recovery of a healthy cluster\n%s", out)
	}
	r.slipway(0, "cluster", "restore", "demo", "--snapshot", file, "--yes")
	node.told("restore", fmt.Sprintf("fetched %x", sum))
}

// demo starts the boot service and makes a cluster of one machine with an etcd.
func (r *rack) demo() (service *exec.Cmd, node *actor) {
	r.t.Helper()
	service = r.serve("--range", "10.99.0.100-10.99.0.109")
	node = r.boot(r.Host(mac))
	r.slipway(0, "machines", "approve", machineID, "--words", node.says("pending"))
	node.goOn()
	node.says("approved")
	r.slipway(0, "cluster", "create", "demo", "--yes", "--timeout", "1m")
	node.says("ready")
	node.told("serve", "serving")
	return service, node
}

// TestFromAScheduledSnapshotToItsRestore: once its etcd is known to run, a cluster's
// first snapshot is due. The boot service takes it when it looks, as it does
// when it starts, and the machine that it was taken of gets it back.
func TestFromAScheduledSnapshotToItsRestore(t *testing.T) {
	r := newRack(t)
	service, node := r.demo()
	node.told("voter", "said")
	r.restart(service)

	scheduled := regexp.MustCompile(`(?m)^(demo-\S+) .* 101 +schedule +([0-9a-f]{12})`)
	var list string
	for range 300 {
		if list = r.slipway(0, "cluster", "snapshots"); scheduled.MatchString(list) {
			break
		}
	}
	found := scheduled.FindAllStringSubmatch(list, -1)
	if len(found) != 1 {
		t.Fatalf("these are kept\n%s", list)
	}
	r.slipway(0, "cluster", "restore", "demo", "--snapshot", found[0][1], "--yes")
	node.told("restore", "fetched "+found[0][2])
}

// refuses wants damaged snapshots to be refused, with the reason.
func (r *rack) refuses(file string, data []byte) {
	r.t.Helper()
	flipped := append([]byte(nil), data...)
	flipped[len(data)/3] ^= 1
	for want, bad := range map[string][]byte{"is damaged": flipped, "cut off": data[:len(data)/2+5], "no hash": data[:len(data)-sha256.Size]} {
		path := file + ".bad"
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			r.t.Fatal(err)
		}
		if out := r.slipway(1, "cluster", "restore", "demo", "--snapshot", path, "--yes"); !strings.Contains(out, want) {
			r.t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
