package vip

import (
	"net/netip"
	"time"
)

// State is where a router is (RFC 9568, 6.3).
type State string

// The states. RFC 9568 calls the last one Active.
const (
	Init   State = "init"   // takes no part
	Backup State = "backup" // listens
	Master State = "master" // holds the address
)

// Event is what happens to a router: one of Prioritize, Heard, Timeout.
type Event any

// Prioritize gives the router another priority; 0 takes it out.
type Prioritize uint8

// Heard is an advertisement for the same virtual router, by another one.
type Heard struct {
	From     netip.Addr
	Priority uint8
	Interval time.Duration
}

// Timeout is the time having come that Machine.Deadline names.
type Timeout struct{}

// Action is what a router is to do: one of Send, Hold, Announce, Drop.
type Action any

// Send sends an advertisement of this priority.
type Send uint8

// Hold has the link hold the address, Drop not. Both may be repeated.
type (
	Hold struct{}
	Drop struct{}
)

// Announce tells the network where the address is: gratuitous ARP.
type Announce struct{}

// announcements is how often a new master announces itself; each may get lost.
const announcements = 3

// Machine is a router: a value that Step makes another of. Its exported fields
// are what it is; State and the rest begin as zero.
type Machine struct {
	Address  netip.Addr    // its own
	Interval time.Duration // Advertisement_Interval

	State    State
	Priority uint8
	Deadline time.Time // when Timeout is due; zero: never

	masters  time.Duration // Active_Adver_Interval: what the master said
	announce int           // how often yet
}

// Step is what an event makes of the router, and what it is then to do. It
// follows RFC 9568, 6.4, with a difference: a backup that hears a master of
// lower priority takes over after its Skew_Time, not after Active_Down_Interval.
// All routers here are of one kind, and the better API server is wanted now.
func (m Machine) Step(now time.Time, e Event) (Machine, []Action) {
	if p, ok := e.(Prioritize); ok {
		return m.prioritize(now, uint8(p))
	}
	switch m.State {
	case Backup:
		return m.backup(now, e)
	case Master:
		return m.master(now, e)
	}
	return m, nil
}

func (m Machine) prioritize(now time.Time, priority uint8) (Machine, []Action) {
	before := m.Priority
	m.Priority = priority
	switch {
	case before == priority:
		return m, nil
	case priority == 0:
		was := m.State
		m.State, m.Deadline = Init, time.Time{}
		if was == Master {
			return m, []Action{Drop{}, Send(0)}
		}
		return m, nil
	case m.State == Master:
		return m.advertise(now) // so that a better one need not wait
	case m.State == Backup:
		return m, nil
	}
	m.masters = m.Interval
	return m.listen(now), nil
}

func (m Machine) backup(now time.Time, e Event) (Machine, []Action) {
	heard, ok := e.(Heard)
	switch {
	case !ok && now.Before(m.Deadline):
		return m, nil // a timer that has been set anew since
	case !ok:
		m.State, m.announce = Master, announcements
		return m.advertise(now)
	case heard.Priority == 0 || heard.Priority < m.Priority:
		if soon := now.Add(m.skew()); soon.Before(m.Deadline) {
			m.Deadline = soon
		}
		return m, nil
	}
	m.masters = heard.Interval
	return m.listen(now), nil
}

func (m Machine) master(now time.Time, e Event) (Machine, []Action) {
	heard, ok := e.(Heard)
	switch {
	case !ok && now.Before(m.Deadline):
		return m, nil
	case !ok:
		return m.advertise(now)
	case heard.Priority == 0:
		return m.advertise(now)
	case heard.Priority > m.Priority || heard.Priority == m.Priority && m.Address.Less(heard.From):
		m.masters = heard.Interval
		m.State = Backup
		return m.listen(now), []Action{Drop{}}
	}
	// Another one thinks it is the master, and the network may think so too.
	m.announce = announcements
	return m.advertise(now)
}

// advertise is the master's turn: hold the address, say so, and until when.
func (m Machine) advertise(now time.Time) (Machine, []Action) {
	m.Deadline = now.Add(m.Interval)
	actions := []Action{Hold{}, Send(m.Priority)}
	if m.announce > 0 {
		m.announce--
		actions = append(actions, Announce{})
	}
	return m, actions
}

// listen waits for the master's next advertisements: three may get lost.
func (m Machine) listen(now time.Time) Machine {
	m.State = Backup
	m.Deadline = now.Add(3*m.masters + m.skew())
	return m
}

// skew is Skew_Time: the better a router, the sooner it takes over.
func (m Machine) skew() time.Duration {
	return (256 - time.Duration(m.Priority)) * m.masters / 256
}
