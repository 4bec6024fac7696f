package serve

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFromASnapshotToItsRestore takes a snapshot of a machine's real etcd, to a
// file and to the boot service, breaks copies of it, and restores it: the
// machine gets exactly the bytes that were taken.
func TestFromASnapshotToItsRestore(t *testing.T) {
	r := newRack(t)
	service := r.serve("--range", "10.99.0.100-10.99.0.109")
	node := r.boot(r.Host(mac))
	r.slipway(0, "machines", "approve", machineID, "--words", node.says("pending"))
	node.goOn()
	node.says("approved")
	r.slipway(0, "cluster", "create", "demo", "--yes", "--wait", "--timeout", "1m")
	node.says("ready")
	node.told("serve", "serving")

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
