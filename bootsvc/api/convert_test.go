package api

import (
	"testing"
	"time"

	"slipway/bootsvc/assign"
	"slipway/bootsvc/inventory"
	"slipway/configs/cluster"
	configs "slipway/configs/enroll"
)

// TestClusterAfterAPowerCut: the machine that led etcd lost its power, and says
// so no more than anything else.
func TestClusterAfterAPowerCut(t *testing.T) {
	cut := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	says := func(id string, leader bool, at time.Time) inventory.Machine {
		return inventory.Machine{ID: id, Phase: configs.Ready, LastSeen: at, Etcd: inventory.EtcdState{Voter: true, Healthy: true, Leader: leader}}
	}
	for after, want := range map[time.Duration]struct {
		waits string
		late  bool
	}{
		20 * time.Second: {"", false},
		time.Minute:      {"its next report; last heard of 1m0s ago", true},
	} {
		now := cut.Add(after)
		c := clusterTo(assign.Cluster{Document: &cluster.Cluster{}, Machines: []inventory.Machine{
			says("was", true, cut), says("is", true, now.Add(-time.Second)), says("follows", false, now),
		}}, now)
		was, is, follows := c.Machines[0], c.Machines[1], c.Machines[2]
		if was.GetEtcd().GetLeader() || !is.GetEtcd().GetLeader() || follows.GetEtcd().GetLeader() {
			t.Errorf("after %v: %v, %v and %v lead", after, was.GetEtcd(), is.GetEtcd(), follows.GetEtcd())
		}
		if was.GetWaitingFor() != want.waits || was.GetLate() != want.late || is.GetLate() {
			t.Errorf("after %v: it waits for %q, late %t", after, was.GetWaitingFor(), was.GetLate())
		}
	}
}
