package etcdmember

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestFiveAndSeven: a cluster of three grows to five members and then to seven,
// one after the other. Each time it goes on without two, or three, that are
// killed; without one more it takes nothing, until that one is back.
func TestFiveAndSeven(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var nodes []*node
	for _, name := range strings.Split("abcdefg", "") {
		nodes = append(nodes, s.add(name, "192.0.2.9"+string('1'+name[0]-'a')))
	}
	nodes[0].start(1, leave("one", ""), nodes[:3]...)
	for _, n := range nodes[1:3] {
		n.start(1, nil, nodes[:3]...)
	}
	for _, n := range nodes[:3] {
		n.voter()
	}
	for have := 3; have < 7; have += 2 {
		size := have + 2
		t.Run(fmt.Sprintf("from %d to %d", have, size), func(t *testing.T) {
			grow(t, nodes[:size], have)
			survive(t, nodes[:size])
		})
	}
}

// TestFromOneToThree: a member that is alone, and written to, gets two others by
// one document. The boot service hands out its changed config and the next one's
// first one without an order; whichever comes first, its etcd starts anew, once,
// with the clock of a member among others, and what was acknowledged is kept.
func TestFromOneToThree(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		addresses string // their last digits
		late      bool   // the first one's config changes when the others have joined
	}{
		"its config changes while the next one joins": {"123", false},
		"its config changes when the others are in":   {"456", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			var nodes []*node
			for i, name := range []string{"a", "b", "c"} {
				nodes = append(nodes, s.add(name, "192.0.2.11"+test.addresses[i:i+1]))
			}
			fromOneToThree(t, nodes, test.late)
			dead, left := split(nodes, 1)
			dead[0].crash()
			left[0].accepts("without", "the leader")
		})
	}
}

func fromOneToThree(t *testing.T, nodes []*node, late bool) {
	a := nodes[0]
	a.start(1, leave("one", ""), a)
	a.voter()
	alone := a.status()
	writing := write(t, a) // at its own socket only, as its API server does
	a.eventually("write that is taken", func() bool { return writing.count() > 0 })
	nodes[1].start(1, nil, nodes...)
	if !late {
		writing.through(a, func() { a.gets(nodes...) })
	}
	nodes[1].voter()
	nodes[2].start(1, nil, nodes...)
	nodes[2].voter()
	if late {
		writing.through(a, func() { a.gets(nodes...) })
	}
	sameClock(t, nodes...)
	writing.check(nodes[2])
	now := a.status()
	if now.MemberId != alone.MemberId || now.ClusterId != alone.ClusterId || now.HeartbeatMs <= alone.HeartbeatMs || len(a.members()) != 3 {
		t.Errorf("alone it was %v, among %v it is %v", alone, a.members(), now)
	}
}

// gets gives a machine that runs a config with other members, as its agent does:
// the files first, and then the units.
func (n *node) gets(members ...*node) {
	n.t.Helper()
	n.lists(members...)
	must(n.t, n.units.Apply(n.t.Context(), n.plan()))
}

// grow gives all a config that lists them, and has those join that are new.
func grow(t *testing.T, nodes []*node, have int) {
	for _, n := range nodes[:have] {
		n.lists(nodes...)
	}
	for _, n := range nodes[have:] {
		n.start(1, nil, nodes...)
		n.voter()
	}
	if got := nodes[0].members(); len(got) != len(nodes) {
		t.Fatalf("members %v, want %d", got, len(nodes))
	}
}

// survive kills the leader and as many others as a majority can do without, then
// one more, and has them back.
func survive(t *testing.T, nodes []*node) {
	dead, left := split(nodes, len(nodes)/2)
	asked, next := left[0], left[len(left)-1]
	for _, n := range dead {
		n.crash()
	}
	asked.accepts("without", "a minority")
	next.crash()
	asked.says("a quorum of the members", "slipway cluster recover")
	if asked.tryPut("without", "a majority") == nil {
		t.Errorf("%d of %d take a write", len(left)-1, len(nodes))
	}
	next.run()
	asked.accepts("with", "a majority")
	for _, n := range dead {
		n.run()
	}
	for _, n := range nodes {
		n.voter()
	}
	if got := nodes[0].get("with"); got != "a majority" {
		t.Errorf("with is %q", got)
	}
}

// split parts some members, the leader among them, from the others.
func split(nodes []*node, count int) (some, others []*node) {
	for _, n := range nodes {
		st := n.status()
		switch {
		case st.LeaderId == st.MemberId:
			some = append([]*node{n}, some...)
		case len(some) < count:
			some = append(some, n)
		default:
			others = append(others, n)
		}
	}
	if len(some) > count { // the leader came last
		others, some = append(others, some[count:]...), some[:count]
	}
	return some, others
}

// crash kills etcd, and leaves the machine off.
func (n *node) crash() {
	n.t.Helper()
	n.kill()
	n.stop()
}

// accepts waits until a write is taken: the members may elect a leader first.
func (n *node) accepts(key, value string) {
	n.t.Helper()
	var err error
	n.eventually("accepted write", func() bool { err = n.tryPut(key, value); return err == nil })
}

// tryPut writes once.
func (n *node) tryPut(key, value string) error {
	n.t.Helper()
	client := n.client()
	defer client.Close()
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Second)
	defer cancel()
	_, err := client.Put(ctx, key, value)
	return err
}
