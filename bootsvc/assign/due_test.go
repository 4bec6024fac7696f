package assign

import (
	"strings"
	"testing"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// standing reads a machine: its name, what it is to have, was given and runs
// with, and words: ready, voter (a healthy one), was (it was a voter), silent,
// worker, dedicated (a control plane without a member), renewed.
func standing(text string) stand {
	f := strings.Fields(strings.ReplaceAll(text, "-", ""))
	s := stand{hostname: f[0], plane: true, member: true}
	digests := strings.Split(f[1], "/")
	s.wanted, s.given, s.applied = digests[0], digests[1], digests[2]
	for _, word := range f[2:] {
		switch word {
		case "ready":
			s.ready = true
		case "voter":
			s.voter, s.wasVoter = true, true
		case "was":
			s.wasVoter = true
		case "silent":
			s.silent = true
		case "worker":
			s.plane, s.member = false, false
		case "dedicated":
			s.member = false
		case "renewed":
			s.renewed = true
		}
	}
	return s
}

func TestWhoseTurnItIs(t *testing.T) {
	for name, test := range map[string]struct {
		me     string
		others []string
		want   string // what is waited for; empty: its turn
	}{
		"alone":                               {"a B/A/A ready voter", nil, ""},
		"the first of three":                  {"a B/A/A ready voter", []string{"b B/A/A ready voter", "c B/A/A ready voter"}, ""},
		"one is changing":                     {"a B/A/A ready voter", []string{"b B/B/A ready voter", "c B/A/A ready voter"}, "b to take its config"},
		"one has changed and is not ready":    {"a B/A/A ready voter", []string{"b B/B/B voter", "c B/A/A ready voter"}, "b to be ready"},
		"one has changed and is no voter yet": {"a B/A/A ready voter", []string{"b B/B/B ready was", "c B/A/A ready voter"}, "b to be ready"},
		"one has changed and is well":         {"a B/A/A ready voter", []string{"b B/B/B ready voter", "c B/A/A ready voter"}, ""},
		"one is being started again":          {"a B/A/A ready voter", []string{"b B/B/- was", "c B/A/A ready voter"}, "b to be ready"},
		"a new one has not joined yet":        {"a B/A/A ready voter", []string{"b B/A/A ready voter", "c B/A/A ready voter", "d B/B/-"}, ""},
		"a new one is a learner":              {"a B/A/A ready voter", []string{"b B/A/A ready voter", "c B/A/A ready voter", "d B/B/B"}, "d to be ready"},
		"one is dead":                         {"a B/A/A ready voter", []string{"b B/A/A ready voter", "c B/A/A ready was silent"}, ""},
		"one is dead, another changing":       {"a B/A/A ready voter", []string{"b B/B/A ready voter", "c B/A/A was silent"}, "b to take its config"},
		"one died while it was changing":      {"a B/A/A ready voter", []string{"b B/B/A ready was silent", "c B/A/A ready voter"}, ""},
		"two of five are dead":                {"a B/A/A ready voter", []string{"b B/A/A ready voter", "c B/A/A ready voter", "d B/A/A was silent", "e B/A/A was silent"}, "d to be heard of"},
		"I am not well, nor is another":       {"a B/A/A was", []string{"b B/A/A was", "c B/A/A ready voter"}, ""},
		"I am not well, another is changing":  {"a B/A/A was", []string{"b B/B/A ready voter", "c B/A/A ready voter"}, "b to take its config"},
		"I am changing, and it changed again": {"a C/B/A ready voter", []string{"b C/A/A was", "c C/A/A ready voter"}, ""},
		"two are changing, of old":            {"a C/B/A ready voter", []string{"b C/B/A ready voter"}, ""},
		"etcd starts anew":                    {"a B/A/A ready voter renewed", []string{"b B/B/A ready voter", "c B/A/A was"}, ""},
		"a control plane beside etcd":         {"a B/A/A ready dedicated", []string{"b B/A/A ready dedicated", "e B/A/A ready voter"}, ""},
		"etcd's machines are changing":        {"a B/A/A ready dedicated", []string{"b B/A/A ready dedicated", "e B/B/A ready voter"}, "e to take its config"},
		"two voters dead beside me":           {"a B/A/A ready dedicated", []string{"d B/A/A was silent", "e B/A/A was silent", "f B/A/A ready voter"}, ""},
		"workers do not count":                {"a B/A/A ready voter", []string{"w B/B/A worker", "x B/A/A worker"}, ""},
		"a worker before its turn":            {"w B/A/A ready worker", []string{"a B/B/B ready voter", "b B/A/A ready voter"}, "b to take its config"},
		"a worker in its turn":                {"w B/A/A ready worker", []string{"a B/B/B ready voter", "b B/B/B ready voter", "x B/B/A worker"}, ""},
		"a worker, one plane dead":            {"w B/A/A ready worker", []string{"a B/B/B ready voter", "b B/A/A was silent"}, ""},
		"a worker, one plane not well":        {"w B/A/A ready worker", []string{"a B/B/B voter"}, ""},
	} {
		var others []stand
		for _, text := range test.others {
			others = append(others, standing(text))
		}
		got := due(standing(test.me), others)
		if (got == "") != (test.want == "") || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestARolloutEnds lets machines take their configs in any order, with at most
// one down at a time, until all have the newest.
func TestWhoJoinsBeforeWhom(t *testing.T) {
	now := time.Now()
	plane := func(n string, phase enroll.Phase) inventory.Machine {
		return inventory.Machine{ID: n, Hostname: "cp-" + n, Role: machine.ControlPlane, Phase: phase, LastSeen: now}
	}
	dead := plane("1", enroll.Joining)
	dead.LastSeen = now.Add(-time.Hour)
	member := inventory.Machine{ID: "e", Hostname: "etcd-e", Role: machine.EtcdOnly}
	worker := inventory.Machine{ID: "w", Hostname: "worker-w", Role: machine.Worker}
	tests := map[string]struct {
		etcd   Etcd
		planes [3]inventory.Machine
		want   map[string]string // who waits for whom
	}{
		"new, stacked: who begins etcd is first": {Etcd{Grant: Grant{Machine: "2"}},
			[3]inventory.Machine{plane("1", enroll.Assigned), plane("2", enroll.Joining), plane("3", enroll.Assigned)},
			map[string]string{"1": "cp-2", "3": "cp-2", "w": "cp-2"}},
		"new, etcd elsewhere: the document's first": {Etcd{Grant: Grant{Machine: "e"}},
			[3]inventory.Machine{plane("1", enroll.Joining), plane("2", enroll.Assigned), plane("3", enroll.Assigned)},
			map[string]string{"2": "cp-1", "3": "cp-1", "w": "cp-1"}},
		"restored on another than the one that waits": {Etcd{Grant: Grant{Machine: "2"}},
			[3]inventory.Machine{plane("1", enroll.Joining), plane("2", enroll.Assigned), plane("3", enroll.Ready)},
			map[string]string{"1": "cp-2", "3": "cp-2", "w": "cp-2"}},
		"the second joins": {Etcd{Opened: true},
			[3]inventory.Machine{plane("1", enroll.Ready), plane("2", enroll.Joining), plane("3", enroll.Assigned)},
			map[string]string{"1": "cp-2", "3": "cp-2"}},
		"one that joined is silent": {Etcd{Opened: true}, [3]inventory.Machine{dead, plane("2", enroll.Ready), plane("3", enroll.Assigned)}, nil},
		"one that joined failed":    {Etcd{Opened: true}, [3]inventory.Machine{plane("1", enroll.Failed), plane("2", enroll.Ready), plane("3", enroll.Assigned)}, nil},
		"all are blank again":       {Etcd{Opened: true}, [3]inventory.Machine{plane("1", enroll.Assigned), plane("2", enroll.Assigned), plane("3", enroll.Assigned)}, nil},
	}
	for name, tt := range tests {
		c := Cluster{Machines: append(tt.planes[:], member), Etcd: tt.etcd}
		for _, m := range append(c.Machines, worker) {
			got, _, _ := strings.Cut(c.before(m, now), " ")
			if got != tt.want[m.ID] {
				t.Errorf("%s: %s waits for %q, want %q", name, m.ID, got, tt.want[m.ID])
			}
		}
	}
	if (Cluster{}).before(worker, now) != "" {
		t.Error("without a control plane there is nothing to wait for")
	}
}

func TestARolloutEnds(t *testing.T) {
	const n = 5
	var all [n]stand
	for i := range all {
		all[i] = standing(string(rune('a'+i)) + " B/A/A ready voter")
	}
	for round := range 20 * n {
		me := &all[(round*3)%n]
		others := make([]stand, 0, n)
		down := 0
		for i := range all {
			if &all[i] != me {
				others = append(others, all[i])
			}
			if !all[i].well() || all[i].changing() {
				down++
			}
		}
		if down > 1 {
			t.Fatalf("round %d: %d are down", round, down)
		}
		switch {
		case me.changing(): // it restarts
			me.applied, me.voter = me.given, false
		case !me.voter:
			me.voter = true
		case me.given != me.wanted && due(*me, others) == "":
			me.given = me.wanted
		}
	}
	for _, s := range all {
		if s.applied != "B" || !s.well() {
			t.Errorf("%s ends as %+v", s.hostname, s)
		}
	}
}
