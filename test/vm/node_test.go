package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"slipway/qemu"
	"slipway/test/vmtest"
)

// Durations are those of the reference computer; vmtest scales them.
const (
	bootPatience    = 4 * time.Minute // power-on to Ready, several times what it takes
	enrolPatience   = 2 * time.Minute // power-on to a certificate
	podPatience     = time.Minute
	recoverPatience = 2 * time.Minute // a killed component to Ready again
)

// long says whether stories are told too that repeat, for another firmware or another damage,
// what a shorter one tells: with them all take two to three hours on two emulated cores.
func long(t *testing.T) bool {
	t.Helper()
	host, err := qemu.FindHost(t.Context(), nil)
	return os.Getenv("SLIPWAY_VM_LONG") != "" || err == nil && host.Accel == qemu.KVM || runtime.NumCPU() >= 4
}

// chapter is a part of a story; what follows builds on it.
func chapter(t *testing.T, name string, story func(*testing.T)) {
	t.Helper()
	if !t.Run(name, story) {
		t.FailNow()
	}
}

// needLong skips a story that only long ones tell.
func needLong(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines")
	}
	if !long(t) {
		t.Skip("it takes long on few emulated cores: SLIPWAY_VM_LONG=1 has it told all the same")
	}
}

// unit is a unit's status as `slipway node services -o json` prints it.
type unit struct {
	Name      string `json:"name"`
	State     string `json:"state"`
	Restarts  int    `json:"restarts"`
	PID       int    `json:"pid"`
	LastError string `json:"last_error"`
}

// createCluster makes a cluster of one control plane, and waits until every node is Ready.
func createCluster(t *testing.T, lab *vmtest.Lab, flags ...string) {
	t.Helper()
	limit := lab.Timeout(bootPatience)
	args := append([]string{"cluster", "create", "prod", "--yes", "--wait", "--timeout", limit.String()}, flags...)
	out, err := lab.TryWithin(limit+time.Minute, lab.Slipway(args...)...)
	if err != nil {
		t.Fatalf("create the cluster: %v\n%s", err, out)
	}
	t.Logf("slipway cluster create:\n%s", out)
}

// awaitNodeReady waits until Kubernetes itself says that the only node is Ready.
func awaitNodeReady(t *testing.T, lab *vmtest.Lab, within time.Duration) {
	t.Helper()
	lab.Await(t, "the node is Ready", within, func() error { return nodeReady(lab) })
}

func nodeReady(lab *vmtest.Lab) error {
	out, err := lab.TryKubectl("get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}`)
	if err != nil {
		return err
	}
	if !strings.Contains(out, "=True") {
		return fmt.Errorf("nodes: %q", out)
	}
	return nil
}

// units asks the node for its units, by name.
func units(lab *vmtest.Lab, node string) (map[string]unit, error) {
	out, err := lab.TryCLI("node", "status", node, "-o", "json")
	if err != nil {
		return nil, err
	}
	var status struct {
		Units []unit `json:"units"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return nil, fmt.Errorf("read %q: %w", out, err)
	}
	byName := make(map[string]unit)
	for _, u := range status.Units {
		byName[u.Name] = u
	}
	return byName, nil
}
