package vm

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/test/vmtest"
)

// Durations are those of the reference computer; vmtest scales them.
const (
	bootPatience    = 4 * time.Minute // power-on to Ready, several times what it takes
	enrolPatience   = 2 * time.Minute // power-on to a certificate
	podPatience     = time.Minute
	recoverPatience = 2 * time.Minute // a killed component to Ready again
)

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
