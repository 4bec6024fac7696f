package agent

import (
	"cmp"
	"testing"

	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
)

func TestProgress(t *testing.T) {
	unit := func(name, state string) *nodev1.Unit {
		return &nodev1.Unit{Name: name, State: state, SinceBootMs: 7000}
	}
	failing := func(restarts int32) *nodev1.Unit {
		return &nodev1.Unit{Name: "etcd", State: "backoff", Restarts: restarts, WaitingFor: "restart in 2s", LastError: "exit status 1"}
	}
	for _, tt := range []struct {
		name     string
		role     machine.Role // a control plane unless said
		wasReady bool
		units    []*nodev1.Unit
		phase    enroll.Phase
		waiting  string
		event    string // made by the last unit
	}{
		{name: "nothing yet", phase: enroll.Joining, waiting: "the node's units"},
		{name: "what starts goes before what waits for it", units: []*nodev1.Unit{
			{Name: "kube-apiserver", State: "waiting", WaitingFor: "etcd"}, unit("etcd", "starting"),
		}, phase: enroll.Joining, waiting: "unit etcd to be ready"},
		{name: "only one waits, for no unit", units: []*nodev1.Unit{
			unit("etcd", "ready"), {Name: "node", State: "starting", WaitingFor: "the Node to be Ready: NetworkNotReady"},
		}, phase: enroll.Joining, waiting: "unit node: the Node to be Ready: NetworkNotReady"},
		{name: "etcd is ready", units: []*nodev1.Unit{unit("etcd", "ready")}, phase: enroll.Joining, waiting: "the node's units", event: "etcd"},
		{name: "the apiserver's name is short", units: []*nodev1.Unit{unit("kube-apiserver", "ready")}, phase: enroll.Joining, waiting: "the node's units", event: "apiserver"},
		{name: "kubelet is no milestone", units: []*nodev1.Unit{unit("kubelet", "ready")}, phase: enroll.Joining, waiting: "the node's units"},
		{name: "a unit fails", units: []*nodev1.Unit{failing(4)}, phase: enroll.Joining,
			waiting: "unit etcd: restart in 2s, ended 4 times, last: exit status 1"},
		{name: "it fails too often", units: []*nodev1.Unit{failing(5)}, phase: enroll.Failed,
			waiting: "unit etcd: restart in 2s, ended 5 times, last: exit status 1"},
		{name: "it came back", units: []*nodev1.Unit{failing(5), unit("etcd", "ready"), unit("node", "ready")}, phase: enroll.Ready, event: "ready"},
		{name: "a ready node loses a unit", units: []*nodev1.Unit{unit("node", "ready"), failing(9)}, phase: enroll.Ready,
			waiting: "unit etcd: restart in 2s, ended 9 times, last: exit status 1"},
		{name: "it was ready before the agent started", wasReady: true, units: []*nodev1.Unit{unit("node", "starting")},
			phase: enroll.Ready, waiting: "unit node to be ready"},
		{name: "its Node is gone, and the kubelet stops", wasReady: true, units: []*nodev1.Unit{
			unit("kubelet", "stopping"), {Name: "node", State: "backoff", Restarts: 1, WaitingFor: "restart in 250ms", LastError: "its Node is gone"},
		}, phase: enroll.Joining, waiting: "unit node: restart in 250ms, ended 1 times, last: its Node is gone"},
		{name: "the kubelet comes back without a Node", wasReady: true, units: []*nodev1.Unit{
			{Name: "node", State: "starting", Restarts: 1, WaitingFor: "its Node is gone"}, unit("kubelet", "ready"),
		}, phase: enroll.Joining, waiting: "unit node: its Node is gone"},
		{name: "it has a Node again", wasReady: true, units: []*nodev1.Unit{
			{Name: "node", State: "starting", Restarts: 1}, {Name: "node", State: "ready", Restarts: 1, SinceBootMs: 7000},
		}, phase: enroll.Ready, event: "ready"},
		{name: "a machine of etcd alone", role: machine.EtcdOnly, units: []*nodev1.Unit{unit("etcd", "ready")}, phase: enroll.Ready, event: "ready"},
		{name: "a unit that is gone holds nobody up", wasReady: true, units: []*nodev1.Unit{failing(9), unit("etcd", "stopped")}, phase: enroll.Ready},
		{name: "one-shot units end", units: []*nodev1.Unit{unit("images", "done")}, phase: enroll.Joining, waiting: "the node's units"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newProgress(cmp.Or(tt.role, machine.ControlPlane), tt.wasReady)
			var last event
			for _, u := range tt.units {
				last = event{}
				for _, e := range p.update(u) {
					last = e
				}
			}
			if phase, waiting := p.phase(); phase != tt.phase || waiting != tt.waiting {
				t.Errorf("%s, waiting for %q; want %s, %q", phase, waiting, tt.phase, tt.waiting)
			}
			if last.name != tt.event {
				t.Errorf("event %q, want %q", last.name, tt.event)
			}
			if last.name != "" && last.at.Seconds() != 7 {
				t.Errorf("event at %s", last.at)
			}
		})
	}
}

// TestUnhealthy: a slot is good once all is ready that others rely on.
func TestUnhealthy(t *testing.T) {
	control := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	etcd := &machine.Etcd{Members: []machine.EtcdMember{{Name: "one"}}}
	for name, tt := range map[string]struct {
		config machine.Config
		needs  []string
	}{
		"a control plane":             {machine.Config{Hostname: "one", Role: machine.ControlPlane, Etcd: etcd}, append([]string{"node", "etcd"}, control...)},
		"a control plane beside etcd": {machine.Config{Hostname: "two", Role: machine.ControlPlane, Etcd: etcd}, append([]string{"node"}, control...)},
		"a machine of etcd":           {machine.Config{Hostname: "one", Role: machine.EtcdOnly, Etcd: etcd}, []string{"etcd"}},
		"a worker":                    {machine.Config{Hostname: "six", Role: machine.Worker}, []string{"node"}},
	} {
		for _, missing := range append(tt.needs, "") {
			p := newProgress(tt.config.Role, false)
			for _, unit := range tt.needs {
				state := "ready"
				if unit == missing {
					state = "starting"
				}
				p.update(&nodev1.Unit{Name: unit, State: state})
			}
			want := ""
			if missing != "" {
				want = "unit " + missing + " to be ready"
			}
			if got := p.unhealthy(&tt.config); got != want {
				t.Errorf("%s: waits for %q, want %q", name, got, want)
			}
		}
	}
}
