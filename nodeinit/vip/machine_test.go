package vip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const second = time.Second

var (
	lower  = netip.MustParseAddr("192.0.2.10")
	middle = netip.MustParseAddr("192.0.2.11")
	higher = netip.MustParseAddr("192.0.2.12")
)

// happening is an event at a time after the start.
type happening struct {
	at    time.Duration
	event Event
}

// TestMachine: each story begins in Init. What is wanted is a line for each
// event: the state after it, when the timer fires, and what is done.
func TestMachine(t *testing.T) {
	full := Prioritize(200) // its Skew_Time is 218.75 ms
	heard := func(priority uint8, from netip.Addr) Heard { return Heard{from, priority, second} }
	for name, story := range map[string]struct {
		events []happening
		want   string
	}{
		"nobody is there": {
			[]happening{{0, full}, {3218 * time.Millisecond, Timeout{}}, {3219 * time.Millisecond, Timeout{}}, {4219 * time.Millisecond, Timeout{}},
				{5219 * time.Millisecond, Timeout{}}, {6219 * time.Millisecond, Timeout{}}},
			`backup 3.21875s
backup 3.21875s
master 4.219s Hold Send(200) Announce
master 5.219s Hold Send(200) Announce
master 6.219s Hold Send(200) Announce
master 7.219s Hold Send(200)`,
		},
		"not well: takes no part": {
			[]happening{{0, Prioritize(0)}, {5 * second, Timeout{}}, {6 * second, heard(100, lower)}},
			"init never\ninit never\ninit never",
		},
		"a master lives": {
			[]happening{{0, full}, {second, heard(200, lower)}, {2 * second, heard(255, lower)}},
			"backup 3.21875s\nbackup 4.21875s\nbackup 5.21875s",
		},
		"a master with another interval": {
			[]happening{{0, full}, {second, Heard{lower, 200, 4 * second}}},
			"backup 3.21875s\nbackup 13.875s",
		},
		"a master gives up": {
			[]happening{{0, full}, {second, heard(0, lower)}, {1219 * time.Millisecond, Timeout{}}},
			"backup 3.21875s\nbackup 1.21875s\nmaster 2.219s Hold Send(200) Announce",
		},
		"a worse master is replaced at once": {
			[]happening{{0, full}, {second, heard(100, higher)}, {1100 * time.Millisecond, heard(100, higher)}, {1219 * time.Millisecond, Timeout{}}},
			"backup 3.21875s\nbackup 1.21875s\nbackup 1.21875s\nmaster 2.219s Hold Send(200) Announce",
		},
		"an equal one is not, whatever its address": {
			[]happening{{0, full}, {second, heard(200, lower)}, {2 * second, heard(200, higher)}},
			"backup 3.21875s\nbackup 4.21875s\nbackup 5.21875s",
		},
		"a worse router waits longer": {
			[]happening{{0, Prioritize(100)}},
			"backup 3.609375s",
		},
		"a master meets a better one": {
			[]happening{{0, Prioritize(100)}, {4 * second, Timeout{}}, {4500 * time.Millisecond, heard(200, lower)}},
			"backup 3.609375s\nmaster 5s Hold Send(100) Announce\nbackup 8.109375s Drop",
		},
		"two masters: the higher address stays": {
			[]happening{{0, full}, {4 * second, Timeout{}}, {4500 * time.Millisecond, heard(200, lower)}},
			"backup 3.21875s\nmaster 5s Hold Send(200) Announce\nmaster 5.5s Hold Send(200) Announce",
		},
		"two masters: the lower address goes": {
			[]happening{{0, full}, {4 * second, Timeout{}}, {4500 * time.Millisecond, heard(200, higher)}},
			"backup 3.21875s\nmaster 5s Hold Send(200) Announce\nbackup 7.71875s Drop",
		},
		"a master hears another give up": {
			[]happening{{0, full}, {4 * second, Timeout{}}, {4500 * time.Millisecond, heard(0, higher)}},
			"backup 3.21875s\nmaster 5s Hold Send(200) Announce\nmaster 5.5s Hold Send(200) Announce",
		},
		"a master loses its API server": {
			[]happening{{0, full}, {4 * second, Timeout{}}, {4500 * time.Millisecond, Prioritize(0)}, {5 * second, Timeout{}}, {6 * second, full}},
			"backup 3.21875s\nmaster 5s Hold Send(200) Announce\ninit never Drop Send(0)\ninit never\nbackup 9.21875s",
		},
		"a master loses etcd, and says so at once": {
			[]happening{{0, full}, {4 * second, Timeout{}}, {4500 * time.Millisecond, Prioritize(100)}, {5 * second, Prioritize(100)}},
			"backup 3.21875s\nmaster 5s Hold Send(200) Announce\nmaster 5.5s Hold Send(100) Announce\nmaster 5.5s",
		},
		"a backup gets better": {
			[]happening{{0, Prioritize(100)}, {second, heard(100, higher)}, {1500 * time.Millisecond, full}, {2 * second, heard(100, higher)}},
			"backup 3.609375s\nbackup 4.609375s\nbackup 4.609375s\nbackup 2.21875s",
		},
		"a backup that is not well any more": {
			[]happening{{0, full}, {second, Prioritize(0)}, {9 * second, Timeout{}}},
			"backup 3.21875s\ninit never\ninit never",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := play(story.events); got != story.want {
				t.Errorf("got\n%s\nwant\n%s", got, story.want)
			}
		})
	}
}

func play(events []happening) string {
	start := time.Unix(1000, 0)
	m := Machine{Address: middle, Interval: second, State: Init}
	var lines []string
	for _, h := range events {
		next, actions := m.Step(start.Add(h.at), h.event)
		m = next
		due := "never"
		if !m.Deadline.IsZero() {
			due = m.Deadline.Sub(start).String()
		}
		line := fmt.Sprintf("%s %s", m.State, due)
		for _, a := range actions {
			text := strings.TrimPrefix(fmt.Sprintf("%T", a), "vip.")
			if priority, ok := a.(Send); ok {
				text = fmt.Sprintf("%s(%d)", text, priority)
			}
			line += " " + text
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
