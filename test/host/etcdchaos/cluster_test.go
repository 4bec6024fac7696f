package etcdchaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"slipway/controlplane/etcd"
	"slipway/test/netns"
)

// machines is how many there are. Three run a member; the others are spare.
const machines = 4

var bridge = netip.MustParsePrefix("10.98.0.1/24")

// cluster is the machines and the etcd that runs on them.
type cluster struct {
	t       *testing.T
	brand   brand
	members []*member
	turn    int  // of any
	clocks  bool // members can have clocks of their own
	// during is what is going on, for whoever reads of a failure.
	during string
}

func newCluster(t *testing.T, b brand) *cluster {
	t.Helper()
	netns.Require(t, "ip", "unshare")
	c := &cluster{t: t, brand: b, during: "the first members join"}
	c.clocks = exec.Command("unshare", "--time", "--fork", "true").Run() == nil
	net := netns.New(t, bridge)
	address := bridge.Addr().Next()
	for i := range machines {
		m := &member{
			c: c, name: fmt.Sprintf("cp-%d", i+1), address: address,
			host: net.Host(fmt.Sprintf("02:00:00:00:00:%02x", i+1)), dir: t.TempDir(), blank: true,
		}
		m.host.Address(netip.PrefixFrom(address, bridge.Bits()))
		address = address.Next()
		c.members = append(c.members, m)
	}
	t.Cleanup(c.end)
	return c
}

// end ends what runs, and after a failure says all that is known.
func (c *cluster) end() {
	for _, m := range c.members {
		if m.process != nil {
			m.kill()
		}
		m.disconnect(nil)
		if c.t.Failed() {
			c.t.Logf("the end of %s's log:\n%s", m.name, m.tail(40))
		}
	}
	if c.t.Failed() {
		c.t.Logf("it failed with -seed %d, when: %s", *seed, c.during)
	}
}

// grow starts a first member, and has others join it.
func (c *cluster) grow(size int) {
	c.t.Helper()
	c.members[0].launch(nil, true)
	c.settle()
	for _, m := range c.members[1:size] {
		c.join(m)
	}
	c.settle()
}

// running are the members whose process should be there.
func (c *cluster) running() []*member {
	var running []*member
	for _, m := range c.members {
		if m.process != nil {
			running = append(running, m)
		}
	}
	return running
}

// spare is a machine that runs no member.
func (c *cluster) spare() *member {
	return c.members[slices.IndexFunc(c.members, func(m *member) bool { return m.blank })]
}

// others are the running members but one.
func (c *cluster) others(but *member) []*member {
	var others []*member
	for _, m := range c.running() {
		if m != but {
			others = append(others, m)
		}
	}
	return others
}

// start starts a member again that was one before.
func (c *cluster) start(m *member) { m.launch(m.peers, false) }

// join brings a blank machine in: as a learner, which is promoted when it has
// caught up. Both wait for what etcd wants first: members that have been
// connected for five seconds, a learner that has nearly all.
func (c *cluster) join(m *member) {
	c.t.Helper()
	id := c.learn(m)
	c.promote(m, id)
}

// learn starts the machine's member as a learner.
func (c *cluster) learn(m *member) uint64 {
	c.t.Helper()
	var peers []etcd.Member
	for _, other := range c.running() {
		peers = append(peers, etcd.Member{Name: other.name, PeerURL: other.url(2380)})
	}
	var id uint64
	c.until("add "+m.name+" as a learner", func(ctx context.Context) error {
		added, err := c.any(m).MemberAddAsLearner(ctx, []string{m.url(2380)})
		if errors.Is(err, rpctypes.ErrPeerURLExist) { // an answer was lost
			id, err = c.find(ctx, m)
			return err
		} else if err != nil {
			return err
		}
		id = added.Member.ID
		return nil
	})
	m.wipe()
	m.launch(peers, false)
	return id
}

func (c *cluster) promote(m *member, id uint64) {
	c.t.Helper()
	c.until("promote "+m.name, func(ctx context.Context) error {
		if m.gone() {
			return fmt.Errorf("%s: %w", m.name, errGone)
		}
		_, err := c.any(m).MemberPromote(ctx, id)
		if errors.Is(err, rpctypes.ErrMemberNotLearner) { // an answer was lost
			return nil
		}
		return err
	})
}

// remove has a member leave for ever. Its machine may be dead.
func (c *cluster) remove(m *member) {
	c.t.Helper()
	c.until("remove "+m.name, func(ctx context.Context) error {
		id, err := c.find(ctx, m)
		if errors.Is(err, errNoMember) { // an answer was lost
			return nil
		} else if err != nil {
			return err
		}
		_, err = c.any(m).MemberRemove(ctx, id)
		return err
	})
	if m.process != nil {
		m.kill()
	}
	m.disconnect(nil)
	m.wipe()
}

var errNoMember = errors.New("no such member")

// find looks a member's ID up.
func (c *cluster) find(ctx context.Context, m *member) (uint64, error) {
	list, err := c.any(m).MemberList(ctx)
	if err != nil {
		return 0, err
	}
	for _, one := range list.Members {
		if one.PeerURLs[0] == m.url(2380) {
			return one.ID, nil
		}
	}
	return 0, errNoMember
}

// any is a client of a member that is well and not the given one, another at
// each call.
func (c *cluster) any(but *member) *clientv3.Client {
	others := slices.DeleteFunc(c.others(but), func(m *member) bool { return m.hurt })
	c.turn++
	return others[c.turn%len(others)].client.Load()
}

// leader is the member that leads.
func (c *cluster) leader() *member {
	c.t.Helper()
	var leader *member
	c.until("learn who leads", func(ctx context.Context) error {
		for _, m := range c.running() {
			s, err := m.client.Load().Status(ctx, m.url(2379))
			if err != nil {
				return err
			}
			if s.Leader == s.Header.MemberId {
				leader = m
				return nil
			}
		}
		return errors.New("nobody does")
	})
	return leader
}

// settle waits until every running member is a voter that answers, and follows the one leader.
func (c *cluster) settle() {
	c.t.Helper()
	c.until("all members are healthy", c.settled)
}

func (c *cluster) settled(ctx context.Context) error {
	var leader uint64
	for _, m := range c.running() {
		s, err := m.status(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if leader == 0 {
			leader = s.Leader
		}
		if s.Leader != leader || leader == 0 {
			return fmt.Errorf("%s follows %x, another follows %x", m.name, s.Leader, leader)
		}
	}
	return nil
}

// status is a healthy voter's; else the error says what is wrong.
func (m *member) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	if m.gone() {
		return nil, errGone
	}
	s, err := m.client.Load().Status(ctx, m.url(2379))
	if err != nil {
		return nil, err
	}
	if s.IsLearner || len(s.Errors) > 0 {
		return nil, fmt.Errorf("learner: %t, errors: %v", s.IsLearner, s.Errors)
	}
	_, err = m.client.Load().Get(ctx, "healthy") // which takes a quorum
	return s, err
}

var errGone = errors.New("the process has ended")

// until asks again and again until the error is nil, and fails the test when
// patience ends or when asking again makes no sense.
func (c *cluster) until(what string, ask func(context.Context) error) {
	c.t.Helper()
	began := time.Now()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
		err := ask(ctx)
		cancel()
		switch {
		case err == nil:
			return
		case errors.Is(err, errGone) || time.Since(began) > patience:
			c.t.Fatalf("%s: not after %.0f s: %v", what, time.Since(began).Seconds(), err)
		}
		<-again.C
	}
}
