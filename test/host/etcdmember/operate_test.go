package etcdmember

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"slipway/configs/machine"
	"slipway/controlplane/etcd"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/proc"
)

// TestCommands: what people do with members, by the API that slipway etcd asks.
func TestCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b, c := s.add("a", "192.0.2.71"), s.add("b", "192.0.2.72"), s.add("c", "192.0.2.73")
	a.start(1, leave("one", ""), a, b, c)
	b.start(1, nil, a, b, c)
	a.voter()
	b.voter()
	t.Run("members", func(t *testing.T) {
		answer, err := b.api().Members(t.Context(), connect.NewRequest(&nodev1.EtcdMembersRequest{}))
		must(t, err)
		var shown []string
		leaders := 0
		for _, m := range answer.Msg.Members {
			shown = append(shown, m.Name+" "+strings.Join(m.PeerUrls, ","))
			if !m.Healthy || m.Learner || m.Id == "" {
				t.Errorf("%v", m)
			}
			if m.Leader {
				leaders++
			}
		}
		slices.Sort(shown)
		if !slices.Equal(shown, []string{"a https://192.0.2.71:2380", "b https://192.0.2.72:2380"}) || leaders != 1 {
			t.Errorf("members are %q, %d lead", shown, leaders)
		}
	})
	t.Run("status", func(t *testing.T) {
		one, other := a.status(), b.status()
		if one.MemberId == other.MemberId || one.ClusterId != other.ClusterId || one.LeaderId != other.LeaderId || one.LeaderId == "" {
			t.Errorf("they do not agree: %v and %v", one, other)
		}
		for _, st := range []*nodev1.EtcdStatusResponse{one, other} {
			if !st.Running || st.Learner || st.Version == "" || st.Revision == 0 || st.DbSize == 0 || len(st.Alarms) > 0 || st.Generation != 1 || st.LastLeader == nil {
				t.Errorf("%v", st)
			}
		}
	})
	t.Run("forfeit-leadership", func(t *testing.T) { s.forfeit(t, a, b) })
	t.Run("defrag", func(t *testing.T) { s.oneAtATime(t, a, b) })
	t.Run("promote", func(t *testing.T) { s.promote(t, a, c) })
	t.Run("remove", func(t *testing.T) {
		_, err := a.api().Remove(t.Context(), connect.NewRequest(&nodev1.EtcdRemoveRequest{Member: "d"}))
		if connect.CodeOf(err) != connect.CodeNotFound || !strings.Contains(err.Error(), "slipway etcd members lists them") {
			t.Errorf("a member that there is not: %v", err)
		}
		c.stop()
		refused(t, a)
		_, err = b.api().Remove(t.Context(), connect.NewRequest(&nodev1.EtcdRemoveRequest{Member: "c"}))
		must(t, err)
		if got := a.members(); len(got) != 2 || got["c"] != "" {
			t.Errorf("members %v", got)
		}
		c.run()
		c.voter()
	})
	t.Run("a dead one that the config lists no more is removed without five minutes' wait", func(t *testing.T) {
		c.stop()
		a.lists(a, b)
		b.lists(a, b)
		a.eventually("list of two", func() bool { return len(a.members()) == 2 })
	})
}

// refused: of three members one is off, and without b the others would be no
// quorum. That cannot be forced: etcd itself does not remove b, whoever asks.
func refused(t *testing.T, a *node) {
	_, err := a.api().Remove(t.Context(), connect.NewRequest(&nodev1.EtcdRemoveRequest{Member: "b"}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "slipway cluster recover") {
		t.Errorf("remove b: %v", err)
	}
	client := a.client()
	defer client.Close()
	id, err := strconv.ParseUint(a.members()["b"], 16, 64)
	must(t, err)
	if _, err := client.MemberRemove(t.Context(), id); !errors.Is(err, rpctypes.ErrUnhealthy) {
		t.Errorf("etcd itself: %v", err)
	}
}

// lists gives a running machine a config with other members.
func (n *node) lists(members ...*node) {
	n.t.Helper()
	n.cfg.Etcd.Members = nil
	for _, m := range members {
		n.cfg.Etcd.Members = append(n.cfg.Etcd.Members, machine.EtcdMember{Name: m.name, Address: m.addr})
	}
	n.writeFiles()
}

// forfeit: the leader hands over, and who does not lead says who does.
func (s *site) forfeit(t *testing.T, a, b *node) {
	leader, other := a, b
	if st := b.status(); st.LeaderId == st.MemberId {
		leader, other = b, a
	}
	for _, asked := range []*node{leader, leader} { // the second time it has nothing to give
		answer, err := asked.api().ForfeitLeadership(t.Context(), connect.NewRequest(&nodev1.EtcdForfeitLeadershipRequest{}))
		must(t, err)
		if answer.Msg.Leader != other.name {
			t.Errorf("%q leads, and not %s", answer.Msg.Leader, other.name)
		}
		leader.eventually("other leader", func() bool { return leader.status().LeaderId == other.status().MemberId })
	}
}

// promote: a person promotes a learner that has caught up, and no other.
func (s *site) promote(t *testing.T, a, c *node) {
	promote := func(who string) error {
		_, err := a.api().Promote(t.Context(), connect.NewRequest(&nodev1.EtcdPromoteRequest{Member: who}))
		return err
	}
	client := a.client()
	defer client.Close()
	var id string
	a.eventually("learner that never comes", func() bool { // etcd wants five quiet seconds of its members first
		added, err := client.MemberAddAsLearner(t.Context(), []string{"https://192.0.2.99:2380"})
		if err == nil {
			id = hexID(added.Member.ID)
		}
		return err == nil
	})
	if err := promote(id); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "in sync with leader") {
		t.Errorf("a learner that is not there: %v", err)
	}
	_, err := a.api().Remove(t.Context(), connect.NewRequest(&nodev1.EtcdRemoveRequest{Member: id}))
	must(t, err)

	c.configure(1, nil, a, c) // joins, but etcd does not start: nobody promotes it
	plan := c.plan()
	plan[1].Service.(*proc.Process).Path = "/bin/false"
	c.runUnits(plan)
	a.eventually("learner in the list", func() bool { _, ok := a.members()[""]; return ok })
	c.eventually("configuration", func() bool { return c.mayStart() })
	c.stop()
	alone := c.plan()[1:]
	alone[0].After = nil
	c.runUnits(alone)
	a.eventually("promotion of c", func() bool { return promote("c") == nil })
	c.stop()
	c.run()
	c.voter()
}

// mayStart: the unit etcd-member lets etcd start.
func (n *node) mayStart() bool {
	return proc.SocketProbe{Path: n.paths.Socket, URL: etcd.ReadyPath}.Probe(n.t.Context()) == nil
}

// TestFullDatabase: a database at its quota takes no more writes, says so, and
// takes them again when objects were deleted and a person had it defragmented.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.add("a", "192.0.2.81")
	a.quota = 32 << 20
	a.start(1, leave("one", ""), a)
	a.voter()
	a.put("kept", "yes")
	client := a.client()
	defer client.Close()
	err := fillDatabase(t.Context(), client)
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("filling it: %v", err)
	}
	a.says("the database is full (32 MiB)", "nothing is lost", "delete objects, then slipway etcd defrag")
	if alarms := a.status().Alarms; len(alarms) != 1 || !strings.Contains(alarms[0], "NOSPACE") {
		t.Errorf("the alarms are %q", alarms)
	}
	if _, err := a.defrag(); err == nil || !strings.Contains(err.Error(), "still full") || !strings.Contains(err.Error(), "delete more objects") {
		t.Errorf("nothing was deleted, and it says %v", err)
	}
	_, err = client.Delete(t.Context(), "filler/", clientv3.WithPrefix())
	must(t, err)
	answer, err := a.defrag()
	must(t, err)
	if answer.Before < 24<<20 || answer.After > 1<<20 {
		t.Errorf("from %d to %d bytes", answer.Before, answer.After)
	}
	a.voter()
	if alarms := a.status().Alarms; len(alarms) > 0 {
		t.Errorf("the alarms are still %q", alarms)
	}
	a.put("again", "yes")
	if a.get("kept") != "yes" || a.get("again") != "yes" {
		t.Error("what was written is not there")
	}
}

// fillDatabase writes until etcd refuses it, or for 64 MiB. Values of this size
// leave few free pages behind, so that defragmentation alone does not help.
func fillDatabase(ctx context.Context, client *clientv3.Client) (err error) {
	value := strings.Repeat("x", 32<<10)
	for i := 0; err == nil && i < 64; i++ {
		var puts []clientv3.Op
		for j := range 32 {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("filler/%03d-%02d", i, j), value))
		}
		_, err = client.Txn(ctx).Then(puts...).Commit()
	}
	return err
}

func (n *node) defrag() (*nodev1.EtcdDefragResponse, error) {
	answer, err := n.api().Defrag(n.t.Context(), connect.NewRequest(&nodev1.EtcdDefragRequest{}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// oneAtATime: while one member is defragmented, which is while it holds a lock, no
// other one is.
func (s *site) oneAtATime(t *testing.T, a, b *node) {
	client := a.client()
	defer client.Close()
	session, err := concurrency.NewSession(client)
	must(t, err)
	lock := concurrency.NewMutex(session, "/slipway/defrag")
	must(t, lock.Lock(t.Context()))
	for _, n := range []*node{a, b} {
		_, err := n.defrag()
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "another member is being defragmented; try again when it is done") {
			t.Errorf("%s: %v", n.name, err)
		}
	}
	must(t, session.Close()) // as when whoever held it dies
	for _, n := range []*node{a, b} {
		if _, err := n.defrag(); err != nil {
			t.Errorf("%s, once nobody holds the lock: %v", n.name, err)
		}
	}
}

// TestDefragmentsByItself: a member gives free pages back by itself when there
// are enough of them, at its next look some minutes later.
func TestDefragmentsByItself(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.add("a", "192.0.2.82")
	clock := &movedClock{}
	a.now = clock.now
	a.start(1, leave("one", ""), a)
	a.voter()
	client := a.client()
	defer client.Close()
	megabyte := strings.Repeat("x", 1<<20)
	var last int64
	for range 120 {
		put, err := client.Put(t.Context(), "big", megabyte)
		must(t, err)
		last = put.Header.Revision
	}
	_, err := client.Compact(t.Context(), last, clientv3.WithCompactPhysical())
	must(t, err)
	before := a.status()
	if before.DbSize < 100<<20 {
		t.Fatalf("the database has %d bytes: the test proves nothing", before.DbSize)
	}
	clock.move(time.Hour)
	a.eventually("smaller database", func() bool { return a.status().DbSize < 10<<20 })
	if a.get("big") != megabyte {
		t.Error("what was written is not there")
	}
}
