package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/supervise"
)

// event is a step of the machine's life.
type event struct {
	name   string
	detail string
	at     time.Duration // since the kernel started
}

// milestone says as what the timeline shows that a unit is ready, if it does.
func milestone(unit string) (string, bool) {
	switch unit {
	case "containerd", etcdUnit:
		return unit, true
	case "kube-apiserver":
		return "apiserver", true
	}
	return "", false
}

// The units that make a machine ready.
const (
	nodeUnit = "node" // is ready when the machine's Node is
	etcdUnit = "etcd" // is ready when the machine's member is a voter
)

// lastUnit is the one whose being ready makes a machine of a role ready: there
// is no Node where only etcd runs.
func lastUnit(role machine.Role) string {
	if role == machine.EtcdOnly {
		return etcdUnit
	}
	return nodeUnit
}

// sharedUnits are what a cluster has on several machines and needs of most, or of
// one at least: they are to be ready here before another machine may lose its own.
func sharedUnits(config *machine.Config) (names []string) {
	if config.IsMember() {
		names = append(names, etcdUnit)
	}
	if config.Role == machine.ControlPlane {
		names = append(names, "kube-apiserver", "kube-controller-manager", "kube-scheduler")
	}
	return names
}

// tooOften is how many restarts of a unit make a machine that joins a failed
// one. It still tries, and is ready if that helps.
const tooOften = 5

// progress is how far the machine has come, as its units show it.
type progress struct {
	units map[string]*nodev1.Unit
	last  string // the unit that makes it ready
	ready bool   // it was ready once
}

func newProgress(role machine.Role, wasReady bool) *progress {
	return &progress{units: map[string]*nodev1.Unit{}, last: lastUnit(role), ready: wasReady}
}

// update takes a unit's new status and returns the milestones it makes.
func (p *progress) update(u *nodev1.Unit) (made []event) {
	p.units[u.Name] = u
	if u.State != string(supervise.Ready) {
		return nil
	}
	at := time.Duration(u.SinceBootMs) * time.Millisecond
	if name, ok := milestone(u.Name); ok {
		made = append(made, event{name: name, at: at})
	}
	if u.Name == p.last {
		p.ready = true
		made = append(made, event{name: "ready", at: at})
	}
	return made
}

// phase returns the machine's phase and what it waits for. A machine that was
// ready stays so while a unit of it comes back: its Node tells the cluster. If
// it has that.
func (p *progress) phase() (enroll.Phase, string) {
	unit, why := p.holdup()
	switch {
	case p.ready && !p.withoutNode():
		return enroll.Ready, why
	case unit != nil && unit.Restarts >= tooOften:
		return enroll.Failed, why
	case why == "":
		return enroll.Joining, "the node's units"
	}
	return enroll.Joining, why
}

// withoutNode says that the machine's Node is gone and not Ready again yet, or that
// the machine cannot be what it wants: by nothing else does its unit end.
func (p *progress) withoutNode() bool {
	u := p.units[nodeUnit]
	return u != nil && u.Restarts > 0 && slices.Contains(comingUp, supervise.State(u.State))
}

// comingUp are the states on the way to being ready, what tells most of a trouble first.
var comingUp = []supervise.State{supervise.Backoff, supervise.Starting, supervise.Waiting}

// holdup is the unit that the others wait for: one that fails, else one that
// starts, else one that waits for something that is no unit; by name among equals.
func (p *progress) holdup() (*nodev1.Unit, string) {
	for _, state := range comingUp {
		for _, name := range slices.Sorted(maps.Keys(p.units)) {
			if u := p.units[name]; u.State == string(state) {
				return u, describe(u)
			}
		}
	}
	return nil, ""
}

func describe(u *nodev1.Unit) string {
	switch {
	case u.State == string(supervise.Backoff):
		return fmt.Sprintf("unit %s: %s, ended %d times, last: %s", u.Name, firstOf(u.WaitingFor, "its restart"), u.Restarts, firstOf(u.LastError, "without an error"))
	case u.WaitingFor != "":
		return fmt.Sprintf("unit %s: %s", u.Name, u.WaitingFor)
	}
	return fmt.Sprintf("unit %s to be ready", u.Name)
}
