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
	{"a blank machine takes the place of a dead member", (*round).replaceDead},
}

// slow faults wait long for what etcd wants before it lets a member go.
var slow = []fault{
	{"a blank machine takes the place of a member that is hurt", (*round).replaceHurt},
	{"a member leaves while another is hurt", (*round).leave},
}

// deal returns so many faults: all of them, shuffled, then again and again,
// with the slow ones.
func deal(rng *rand.Rand, number int) []fault {
	var dealt []fault
	for deck := slices.Clone(faults); len(dealt) < number; deck = slices.Concat(faults, slow) {
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
	r.t.Logf("%s: %d writes acknowledged in %.1f s, checked in %.1f s", r.c.during, r.h.acknowledged(since),
		healed.Seconds(), (time.Since(began) - healed).Seconds())
}

// inject counts a fault.
func (r *round) inject(format string, args ...any) {
	r.injected++
	r.c.during += "; " + fmt.Sprintf(format, args...)
}

func (r *round) killLeader() {
	leader := r.c.leader()
	took := r.c.failover(leader)
	r.inject("%s, writes waited %.1f s", leader.name, took.Seconds())
	r.progress(40)
	r.c.start(leader)
}

func (r *round) killFollower() {
	heal := r.killed(r.pick(r.c.others(r.c.leader())))
	r.progress(40)
	heal()
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
	heal := r.paused(r.pick(r.c.running()))
	r.progress(60)
	heal()
}

func (r *round) unplug() {
	heal := r.unplugged(r.pick(r.c.running()))
	r.progress(60)
	heal()
}

// mute leaves the leader's clients with it: it must notice that it leads
// nobody, and may not answer them from what it holds.
func (r *round) mute() {
	leader := r.c.leader()
	heal := r.muted(leader)
	r.progress(40)
	r.c.until(leader.name+" notices that it leads nobody", func(ctx context.Context) error {
		s, err := leader.client.Load().Status(ctx, leader.url(2379))
		if err == nil && s.Leader == s.Header.MemberId {
			err = errors.New("it says that it leads")
		}
		return err
	})
	heal()
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
	r.inject("%s", r.title(victim))
	r.c.remove(victim)
	r.progress(20)
	r.c.join(victim)
}

// replaceDead has a blank machine take the place of a member that is dead, or
// of a living one after it was killed itself as a learner.
func (r *round) replaceDead() { r.replace(r.killed) }

// replaceHurt is the same with other kinds of harm. etcd takes its time to
// believe that a member is gone that still has connections.
func (r *round) replaceHurt() { r.replace(r.hurt) }

func (r *round) replace(hurt func(*member) (heal func())) {
	comes := r.c.spare()
	id := r.c.learn(comes)
	victim := r.pick(r.c.running())
	heal := hurt(victim)
	r.progress(20)
	if victim == comes {
		heal()
		r.c.promote(comes, id)
		r.c.remove(r.pick(r.c.others(comes)))
		return
	}
	r.c.promote(comes, id)
	r.c.remove(victim)
	heal()
}

// leave has a member leave while another is hurt, after a fourth has come.
func (r *round) leave() {
	r.c.join(r.c.spare())
	goes := r.pick(r.c.running())
	heal := r.hurt(r.pick(r.c.others(goes)))
	r.c.remove(goes)
	r.progress(20)
	heal()
}

// hurt does one of four things to a member; heal undoes it.
func (r *round) hurt(m *member) (heal func()) {
	return []func(*member) func(){r.killed, r.paused, r.unplugged, r.muted}[r.rng.IntN(4)](m)
}

func (r *round) killed(m *member) (heal func()) {
	r.inject("%s is killed", r.title(m))
	m.kill()
	return func() {
		if !m.blank { // else it left in the meantime
			r.c.start(m)
		}
	}
}

func (r *round) paused(m *member) (heal func()) {
	r.inject("%s is paused", r.title(m))
	m.hurt = true
	m.signal(syscall.SIGSTOP)
	return func() {
		m.hurt = false
		if !m.blank {
			m.signal(syscall.SIGCONT)
		}
	}
}

func (r *round) unplugged(m *member) (heal func()) {
	r.inject("%s is unplugged", r.title(m))
	m.hurt = true
	m.host.Plug(false)
	return func() {
		m.hurt = false
		m.host.Plug(true)
		if !m.blank {
			m.connect()
		}
	}
}

// muted members do not reach the others, which reach them.
func (r *round) muted(m *member) (heal func()) {
	r.inject("%s is muted", r.title(m))
	var others []netip.Addr
	for _, other := range r.c.members {
		if other != m {
			others = append(others, other.address)
		}
	}
	m.hurt = true
	m.host.Mute(others, true)
	return func() {
		m.hurt = false
		m.host.Mute(others, false)
	}
}

// title says of a member that leads that it does.
func (r *round) title(m *member) string {
	if r.c.leader() == m {
		return "the leader " + m.name
	}
	return m.name
}

func (r *round) pick(from []*member) *member { return from[r.rng.IntN(len(from))] }
