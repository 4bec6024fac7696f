package assign

import (
	"strings"
	"testing"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

func TestWhoPrepares(t *testing.T) {
	now := time.Now()
	tests := map[string]struct {
		first, second, third string // control planes: their phase, and prepared or silent
		want                 string // who may begin, w is a worker
	}{
		"before all have enrolled":      {"assigned", "discovered", "booting", "1"},
		"the first sets the cluster up": {"joining", "assigned", "assigned", "2"},
		"the second has prepared":       {"joining", "assigned prepared", "assigned", "23"},
		"all control planes have":       {"joining", "assigned prepared", "assigned prepared", "23w"},
		"one that waits is dead":        {"joining", "assigned silent", "assigned", "23"},
		"the second joins":              {"ready", "joining", "assigned", "3"},
	}
	for name, tt := range tests {
		c := Cluster{Document: &cluster.Cluster{}}
		for i, text := range []string{tt.first, tt.second, tt.third} {
			words := strings.Fields(text)
			m := inventory.Machine{ID: string(rune('1' + i)), Role: machine.ControlPlane, Phase: enroll.Phase(words[0]), LastSeen: now}
			m.Prepared = strings.Contains(text, "prepared")
			if strings.Contains(text, "silent") {
				m.LastSeen = now.Add(-time.Hour)
			}
			c.Machines = append(c.Machines, m)
		}
		all := append(c.Machines, inventory.Machine{ID: "w", Role: machine.Worker, Phase: enroll.Assigned, LastSeen: now})
		all = append(all, inventory.Machine{ID: "e", Role: machine.EtcdOnly, Phase: enroll.Assigned, LastSeen: now})
		got := ""
		for _, m := range all {
			c.Document.Machines = append(c.Document.Machines, cluster.Machine{ID: m.ID, Role: m.Role})
		}
		for _, m := range all {
			if m.Phase == enroll.Assigned && c.prepares(m, now) {
				got += m.ID
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q prepare, want %q", name, got, tt.want)
		}
		c.Document.Install = cluster.Install{Disk: machine.Disk{Word: machine.AnyDisk}}
		if c.prepares(all[3], now) {
			t.Errorf("%s: a machine prepares that is to install itself", name)
		}
	}
}

// TestPreparation: a machine that waits is told once that it may prepare, at
// once when it is its turn.
func TestPreparation(t *testing.T) {
	o := newOffice(t)
	for n := range 4 {
		approve(t, o, n+1, "key")
	}
	text := strings.ReplaceAll(string(document("prod", 1, 2, 3, 4)), "- id:", "- role: control-plane\n  id:")
	if _, err := o.Create(t.Context(), []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(t, o, 1, "key"); err != nil {
		t.Fatal(err)
	}
	ask := func(n int, prepared bool, wait time.Duration) Config {
		got, err := o.Fetch(t.Context(), id(n), "key", Has{Prepared: prepared}, wait)
		if err != nil || got.YAML != nil {
			t.Fatalf("machine %d: %v, a config of %d bytes", n, err, len(got.YAML))
		}
		return got
	}
	if ask(3, false, time.Millisecond).Prepare {
		t.Error("the third prepares before the second")
	}
	if !ask(2, false, time.Minute).Prepare {
		t.Error("the second does not prepare")
	}
	woken := make(chan Config, 1)
	go func() { woken <- ask(3, false, 10*time.Second) }()
	if ask(2, true, time.Millisecond).Prepare {
		t.Error("the second is told twice")
	}
	if !(<-woken).Prepare {
		t.Error("the third does not prepare after the second")
	}
}
