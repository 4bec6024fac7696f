package inventory

import (
	"net/netip"
	"slices"
	"time"

	"slipway/bootsvc/timeline"
)

// Event is one step of a machine's life, whoever saw it.
type Event struct {
	Name    string // dhcp, tftp, http, kernel, init, enrolled, ..., ready
	Detail  string
	At      time.Time
	Asker   timeline.Asker // of a dhcp event
	Address netip.Addr     // the machine's, when the event tells it
	UUID    string         // likewise
}

// Entry is an event as it is kept.
type Entry struct {
	Name   string    `json:"name"`
	Detail string    `json:"detail,omitempty"`
	At     time.Time `json:"at"`
	Count  int       `json:"count"` // how often it came in a row
}

// Timeline is what happened to a machine, in order of time: its last boots.
type Timeline struct {
	Boots []Boot `json:"boots"`
}

// Boot is what happened from one power-on to the next.
type Boot struct {
	Stage   stage     `json:"stage"` // the furthest it got
	Last    time.Time `json:"last"`  // when something happened last
	Entries []Entry   `json:"entries"`
}

// The bounds of a timeline: whoever floods it loses only its middle.
const (
	maxBoots   = 4
	maxEntries = 128 // per boot
)

// stage orders the hops of a boot.
type stage int

const (
	untold    stage = iota // the event could be of any: a system asks for an address
	firmware               // the firmware asks for an address
	loader                 // it fetches a loader by TFTP
	loaderAsk              // the loader asks for an address
	fetch                  // it fetches a script, a kernel, an initramfs
	running                // the machine's own system speaks
)

func stageOf(e Event) stage {
	switch {
	case e.Name == "dhcp" && e.Asker == timeline.Firmware:
		return firmware
	case e.Name == "tftp":
		return loader
	case e.Name == "dhcp" && e.Asker == timeline.Loader:
		return loaderAsk
	case e.Name == "http":
		return fetch
	case e.Name == "dhcp":
		return untold
	}
	return running
}

// Two gaps that tell boots apart. UEFI HTTP boot fetches the loader before the
// loader asks for an address, within seconds; firmware that gave up and tries
// the network once more after minutes is a new boot.
const (
	chainGap = 20 * time.Second
	quietGap = 5 * time.Minute
)

// startsBoot reports whether e is the first event of a boot after the ones
// that the timeline has. Hops come in order; going back to an earlier one means
// that the machine was started again.
func (t Timeline) startsBoot(e Event) bool {
	if len(t.Boots) == 0 {
		return true
	}
	boot := t.Boots[len(t.Boots)-1]
	now, quiet := stageOf(e), e.At.Sub(boot.Last)
	switch {
	case now == running || now == untold:
		return false
	case quiet < 0:
		return false // it was seen before what is known already, and written late
	case quiet > quietGap:
		return true
	case now == loaderAsk && boot.Stage == fetch:
		return quiet > chainGap
	}
	return now < boot.Stage
}

// Add returns the timeline with one more event, and whether that is the first
// hop of a boot. Events may come late: they find their place by time.
func (t Timeline) Add(e Event) (Timeline, bool) {
	newBoot := t.startsBoot(e)
	boots := slices.Clone(t.Boots)
	if newBoot {
		boots = append(boots, Boot{})
		boots = boots[max(0, len(boots)-maxBoots):]
	}
	last := &boots[len(boots)-1]
	*last = last.add(e)
	return Timeline{boots}, newBoot && stageOf(e) != running && stageOf(e) != untold
}

func (b Boot) add(e Event) Boot {
	b.Stage = max(b.Stage, stageOf(e))
	b.Last = later(b.Last, e.At)
	entries := slices.Clone(b.Entries)
	if len(entries) > 0 && isHop(entries[0]) && e.At.Before(entries[0].At) {
		e.At = entries[0].At // a boot that we saw begins with its first packet
	}
	i := len(entries)
	for i > 0 && entries[i-1].At.After(e.At) {
		i--
	}
	if i > 0 && entries[i-1].Name == e.Name && entries[i-1].Detail == e.Detail {
		entries[i-1].Count++
		b.Entries = entries
		return b
	}
	entries = slices.Insert(entries, i, Entry{Name: e.Name, Detail: e.Detail, At: e.At, Count: 1})
	if len(entries) > maxEntries {
		entries = slices.Delete(entries, maxEntries/2, maxEntries/2+1)
	}
	b.Entries = entries
	return b
}

// isHop says that one of our own servers saw the entry.
func isHop(e Entry) bool { return e.Name == "dhcp" || e.Name == "tftp" || e.Name == "http" }

// Latest is the latest boot's events; none before the first packet.
func (t Timeline) Latest() []Entry {
	if len(t.Boots) == 0 {
		return nil
	}
	return t.Boots[len(t.Boots)-1].Entries
}
