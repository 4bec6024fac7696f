package main

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"text/tabwriter"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/nodeinit/api/nodev1"
)

func TestRollbackOfANode(t *testing.T) {
	node := &upgradable{states: []*nodev1.SystemDisk{slots("b", "b", "", ""), slots("b", "b", "", ""), slots("a", "a", "", "")}}
	u, m, out := upgradeOf(t, node)
	now, then, err := u.slotsOf(t.Context(), m)
	if err != nil || now.GetName() != "b" || then.GetName() != "a" {
		t.Fatalf("from %v to %v, %v", now, then, err)
	}
	if err := u.back(t.Context(), m, then); err != nil || node.asked.String() != "cordon, look at pods, rollback, uncordon" {
		t.Errorf("%v, asked %q:\n%s", err, node.asked.String(), out)
	}
	empty := slots("a", "a", "", "")
	empty.Slots = empty.Slots[:1]
	for want, disk := range map[string]*nodev1.SystemDisk{"nothing in its other slot": empty, "runs from RAM": nil} {
		u, m, _ = upgradeOf(t, &upgradable{states: []*nodev1.SystemDisk{disk}})
		if _, _, err := u.slotsOf(t.Context(), m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Rollback has the machine run its slot a.
func (n fleetNode) Rollback(_ context.Context, _ *connect.Request[nodev1.RollbackRequest], out *connect.ServerStream[nodev1.UpgradeStep]) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.order, n.at[n.name] = append(n.order, n.name), false
	return out.Send(&nodev1.UpgradeStep{Name: lastStep, Ended: true})
}

// TestRollbackRefusesSkew: all machines run v1.38.0, unless said otherwise, and
// have something else in slot a.
func TestRollbackRefusesSkew(t *testing.T) {
	for name, c := range map[string]struct {
		args   string
		before string            // in slot a
		others map[string]string // what the API says of some
		down   bool              // the API does not answer
		says   string
		goes   bool
	}{
		"the same Kubernetes":   {args: "prod-cp-1", before: "v1.38.0", down: true, goes: true},
		"nobody answers":        {args: "prod-cp-1", before: "v1.37.1", down: true, says: "reach the cluster's API"},
		"it is not recorded":    {args: "prod-cp-1", down: true, goes: true, says: "prod-cp-1: slot a was written by an older Slipway, which did not record its Kubernetes: the version-skew policy is not checked"},
		"a worker":              {args: "prod-worker-1", before: "v1.37.1", goes: true},
		"a worker is newer":     {args: "prod-cp-1", before: "v1.37.1", says: "slipway: roll prod-cp-1 back to slot a: prod-worker-1 has v1.38.0, the image v1.37.1: its kubelet would be newer than the API servers: have it go back first: the version-skew policy of Kubernetes forbids it; --no-skew-check goes on all the same"},
		"a worker is not":       {args: "prod-cp-1", before: "v1.37.1", others: map[string]string{"prod-worker-1": "v1.37.1"}, goes: true},
		"two minor versions":    {args: "prod-cp-1", before: "v1.36.1", others: map[string]string{"prod-worker-1": "v1.36.1"}, says: "a control plane goes back one minor version at most"},
		"a person knows better": {args: "prod-cp-1 --no-skew-check", before: "v1.36.1", down: true, goes: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fleet{kubernetes: [2]string{c.before, "v1.38.0"}}
			boot, contextFile := rackOfFleet(t, f, 1)
			versions := map[string]string{}
			for _, m := range boot.cluster.Machines {
				f.at[m.Hostname] = true
				versions[m.Hostname] = orElse(c.others[m.Hostname], "v1.38.0")
				m.Installation = &bootv1.Installation{Disk: &bootv1.SystemDisk{Path: "/dev/vda"}}
			}
			boot.kubeconfig = kubelets(t, versions)
			if c.down {
				boot.kubeconfig = kubeAPI(t, http.NotFound)
			}
			var out bytes.Buffer
			args := append(strings.Fields("node rollback --yes --no-drain --context "+contextFile), strings.Fields(c.args)...)
			code := run(t.Context(), args, nil, &out, &out)
			if (code == 0) != c.goes || (len(f.order) == 1) != c.goes || !strings.Contains(out.String(), c.says) {
				t.Errorf("exit code %d, %v went:\n%s, want %q", code, f.order, &out, c.says)
			}
		})
	}
}

// TestUpgradeWithoutAPI: a node whose cluster's API does not answer can be upgraded, if a person
// says so: that may be what heals it.
func TestUpgradeWithoutAPI(t *testing.T) {
	for args, goes := range map[string]bool{"": false, "--no-skew-check": true} {
		f := &fleet{}
		boot, contextFile := rackOfFleet(t, f, 1)
		for _, m := range boot.cluster.Machines {
			m.Installation = &bootv1.Installation{Disk: &bootv1.SystemDisk{Path: "/dev/vda"}}
		}
		boot.kubeconfig, boot.image = kubeAPI(t, http.NotFound), v2
		var out bytes.Buffer
		code := run(t.Context(), append(strings.Fields("node upgrade prod-cp-1 --yes --no-drain --context "+contextFile), strings.Fields(args)...), nil, &out, &out)
		if (code == 0) != goes || (len(f.order) > 0) != goes || !goes && !strings.Contains(out.String(), "reach the cluster's API") {
			t.Errorf("%q: exit code %d, %v went:\n%s", args, code, f.order, &out)
		}
	}
}

// TestStatusOfSlots: a node says itself which Kubernetes its slots hold.
func TestStatusOfSlots(t *testing.T) {
	var out bytes.Buffer
	table := tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0)
	diskRows(table, slots("b", "a", "b", ""))
	table.Flush()
	for _, want := range []string{"Slot a   v1, Kubernetes not recorded, good\n", "Slot b   v2, Kubernetes v1.37.1, runs, on trial"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s, want %q", &out, want)
		}
	}
}
