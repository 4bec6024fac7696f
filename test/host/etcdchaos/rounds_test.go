package etcdchaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"
)

// round is one fault, while clients write.
type round struct {
	t        *testing.T
	number   int
	fault    fault
	rng      *rand.Rand
	c        *cluster
	h        *history
	injected int // faults so far
}

// fault is something that goes wrong. Its story ends with everything healed.
type fault struct {
	name  string
	story func(*round)
}

var faults = []fault{
	{"the leader is killed", (*round).killLeader},
	{"a follower is killed", (*round).killFollower},
	{"all are killed at once", (*round).killAll},
	{"a member is paused", (*round).pause},
	{"a member's cable is pulled", (*round).unplug},
	{"the leader hears its peers, and they do not hear it", (*round).mute},
	{"a member starts with other clocks", (*round).shiftClock},
	{"a member is removed, and joins again blank", (*round).rejoin},
	{"the leader is killed while another machine joins", (*round).killDuringJoin},
}

// deal returns so many faults: all of them, shuffled, again and again.
func deal(rng *rand.Rand, number int) []fault {
	var dealt []fault
	for len(dealt) < number {
		deck := slices.Clone(faults)
		rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		dealt = append(dealt, deck...)
	}
	return dealt[:number]
}

// play has clients write while the fault comes and goes, and then checks.
func (r *round) play() {
	r.t.Helper()
	began := time.Now()
	r.c.during = fmt.Sprintf("round %d: %s", r.number, r.fault.name)
	clients := newCrowd(r.h, r.number, r.c.running(), r.rng)
	since := r.h.now()
	func() {
		defer clients.end()
		r.progress(20)
		r.fault.story(r)
		r.c.settle()
		r.progress(20)
	}()
	healed := time.Since(began)
	r.check()
	if r.t.Failed() {
		r.t.FailNow()
	}
	r.t.Logf("%s: %d writes acknowledged in %.1f s, checked in %.1f s", r.c.during, r.h.acknowledged(since),
		healed.Seconds(), (time.Since(began) - healed).Seconds())
}

// inject counts a fault.
func (r *round) inject(format string, args ...any) {
	r.injected++
	r.c.during += ": " + fmt.Sprintf(format, args...)
}

func (r *round) killLeader() {
	leader := r.c.leader()
	took := r.c.failover(leader)
	r.inject("%s, writes waited %.1f s", leader.name, took.Seconds())
	r.progress(40)
	r.c.start(leader)
}

func (r *round) killFollower() {
	victim := r.pick(r.c.others(r.c.leader()))
	r.inject("%s", victim.name)
	victim.kill()
	r.progress(40)
	r.c.start(victim)
}

func (r *round) killAll() {
	all := r.c.running()
	for _, m := range all {
		r.inject("%s", m.name)
		m.kill()
	}
	r.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, m := range all {
		r.c.start(m)
	}
}

func (r *round) pause() {
	victim := r.pick(r.c.running())
	r.inject("%s, the leader is %s", victim.name, r.c.leader().name)
	victim.signal(syscall.SIGSTOP)
	r.progress(60)
	victim.signal(syscall.SIGCONT)
}

func (r *round) unplug() {
	victim := r.pick(r.c.running())
	r.inject("%s, the leader is %s", victim.name, r.c.leader().name)
	victim.host.Plug(false)
	r.progress(60)
	victim.host.Plug(true)
	victim.connect()
}

// mute leaves the leader's clients with it: it must notice that it leads
// nobody, and may not answer them from what it holds.
func (r *round) mute() {
	leader := r.c.leader()
	r.inject("%s", leader.name)
	var peers []netip.Addr
	for _, m := range r.c.others(leader) {
		peers = append(peers, m.address)
	}
	leader.host.Mute(peers, true)
	r.progress(40)
	r.c.until(leader.name+" notices that it leads nobody", func(ctx context.Context) error {
		s, err := leader.client.Load().Status(ctx, leader.url(2379))
		if err == nil && s.Leader == s.Header.MemberId {
			err = errors.New("it says that it leads")
		}
		return err
	})
	leader.host.Mute(peers, false)
}

// shiftClock gives a member clocks that are ahead of the others', and maybe
// behind what they were when it ran before.
func (r *round) shiftClock() {
	if !r.c.clocks {
		r.t.Log("no fault: this computer has no time namespaces")
		return
	}
	victim := r.pick(r.c.running())
	victim.kill()
	r.progress(20)
	const year = 365 * 24 * time.Hour
	victim.clock = []time.Duration{time.Minute, time.Hour, year, 50 * year}[r.rng.IntN(4)]
	r.inject("%s, %v ahead", victim.name, victim.clock)
	r.c.start(victim)
}

func (r *round) rejoin() {
	victim := r.pick(r.c.running())
	r.inject("%s, the leader is %s", victim.name, r.c.leader().name)
	r.c.remove(victim)
	r.progress(20)
	r.c.join(victim)
}

// killDuringJoin leaves three voters and a learner without their leader, and
// has a voter leave when the learner has become one.
func (r *round) killDuringJoin() {
	blank := r.c.spare()
	leaves := r.pick(r.c.running())
	id := r.c.learn(blank)
	leader := r.c.leader()
	took := r.c.failover(leader)
	r.inject("%s, writes waited %.1f s; %s joins", leader.name, took.Seconds(), blank.name)
	r.c.promote(blank, id)
	r.c.start(leader)
	r.c.settle()
	r.inject("%s leaves", leaves.name)
	r.c.remove(leaves)
	r.c.members = append(slices.DeleteFunc(slices.Clone(r.c.members), func(m *member) bool { return m == leaves }), leaves)
}

func (r *round) pick(from []*member) *member { return from[r.rng.IntN(len(from))] }
