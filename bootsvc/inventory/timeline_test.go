package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/bootsvc/timeline"
	"slipway/configs/enroll"
)

var powerOn = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// at is an event some seconds after power-on: "dhcp/firmware", "http", "init".
func at(seconds float64, what string) Event {
	name, asker, _ := strings.Cut(what, "/")
	return Event{Name: name, Asker: timeline.Asker(asker), At: powerOn.Add(time.Duration(seconds * float64(time.Second)))}
}

// boots shows a timeline as the names of each boot's events.
func boots(t Timeline) (shown []string) {
	for _, boot := range t.Boots {
		var names []string
		for _, e := range boot.Entries {
			names = append(names, fmt.Sprintf("%s×%d", e.Name, e.Count))
		}
		shown = append(shown, strings.Join(names, " "))
	}
	return shown
}

func TestBootsAreToldApart(t *testing.T) {
	tests := map[string]struct {
		events []Event
		want   []string
	}{
		"BIOS PXE to running": {
			[]Event{at(0, "dhcp/firmware"), at(1, "dhcp/firmware"), at(2, "tftp"), at(4, "dhcp/loader"), at(5, "http"), at(6, "http"), at(9, "dhcp/system"), at(12, "init")},
			[]string{"dhcp×2 tftp×1 dhcp×1 http×2 dhcp×1 init×1"},
		},
		"a card with iPXE in its ROM": {
			[]Event{at(0, "dhcp/loader"), at(1, "http"), at(5, "dhcp/system"), at(6, "init")},
			[]string{"dhcp×1 http×1 dhcp×1 init×1"},
		},
		"UEFI HTTP boot fetches its loader first": {
			[]Event{at(0, "dhcp/firmware"), at(1, "http"), at(3, "dhcp/loader"), at(4, "http"), at(9, "init")},
			[]string{"dhcp×1 http×1 dhcp×1 http×1 init×1"},
		},
		"a fetch that is written after the enrolment": {
			[]Event{at(0, "dhcp/loader"), at(3, "enrolled"), at(1, "http")},
			[]string{"dhcp×1 http×1 enrolled×1"},
		},
		"reset after it ran": {
			[]Event{at(0, "dhcp/loader"), at(1, "http"), at(9, "init"), at(60, "dhcp/loader"), at(61, "http")},
			[]string{"dhcp×1 http×1 init×1", "dhcp×1 http×1"},
		},
		"reset while the kernel started": {
			[]Event{at(0, "dhcp/loader"), at(1, "http"), at(31, "dhcp/loader"), at(32, "http")},
			[]string{"dhcp×1 http×1", "dhcp×1 http×1"},
		},
		"firmware begins again": {
			[]Event{at(0, "dhcp/firmware"), at(1, "tftp"), at(5, "dhcp/firmware")},
			[]string{"dhcp×1 tftp×1", "dhcp×1"},
		},
		"the kernel is fetched again without a packet before": {
			[]Event{at(0, "dhcp/loader"), at(1, "http"), at(9, "init"), at(60, "http")},
			[]string{"dhcp×1 http×1 init×1", "http×1"},
		},
		"a running system renews its lease for hours": {
			[]Event{at(0, "dhcp/loader"), at(9, "ready"), at(3600, "dhcp/system"), at(7200, "dhcp/system")},
			[]string{"dhcp×1 ready×1 dhcp×2"},
		},
		"a boot that only its system's packets tell of": {
			[]Event{at(0, "dhcp/system"), at(1, "http"), at(9, "init")},
			[]string{"dhcp×1 http×1 init×1"},
		},
		"firmware that gave up and tries again": {
			[]Event{at(0, "dhcp/firmware"), at(600, "dhcp/firmware")},
			[]string{"dhcp×1", "dhcp×1"},
		},
		"reports come late and find their place": {
			[]Event{at(0, "dhcp/loader"), at(10, "enrolled"), at(4, "kernel"), at(5, "init")},
			[]string{"dhcp×1 kernel×1 init×1 enrolled×1"},
		},
		"nothing is before the first packet": {
			[]Event{at(5, "dhcp/loader"), at(1, "kernel")},
			[]string{"dhcp×1 kernel×1"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var line Timeline
			for _, e := range test.events {
				line, _ = line.Add(e)
			}
			if diff := cmp.Diff(test.want, boots(line)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestATimelineIsBounded(t *testing.T) {
	var line Timeline
	for i := range 3 * maxEntries {
		line, _ = line.Add(at(float64(i), fmt.Sprintf("event%d", i)))
	}
	entries := line.Latest()
	if len(entries) != maxEntries || entries[0].Name != "event0" || entries[maxEntries-1].Name != fmt.Sprintf("event%d", 3*maxEntries-1) {
		t.Errorf("%d entries from %s to %s", len(entries), entries[0].Name, entries[len(entries)-1].Name)
	}
	for i := range 3 * maxBoots {
		line, _ = line.Add(at(1000*float64(i+1), "dhcp/firmware"))
	}
	if len(line.Boots) != maxBoots {
		t.Errorf("%d boots", len(line.Boots))
	}
}

func TestAddLeavesTheOldTimelineAlone(t *testing.T) {
	line, _ := Timeline{}.Add(at(0, "dhcp/loader"))
	before := boots(line)
	line.Add(at(0, "dhcp/loader"))
	line.Add(at(600, "dhcp/firmware"))
	if diff := cmp.Diff(before, boots(line)); diff != "" {
		t.Error(diff)
	}
}

func TestPhases(t *testing.T) {
	tests := map[string]struct {
		from    enroll.Phase
		event   string
		newBoot bool
		want    enroll.Phase
	}{
		"first packet":                    {"", "dhcp/firmware", true, enroll.Discovered},
		"first packet is iPXE's":          {"", "dhcp/loader", true, enroll.Booting},
		"more packets":                    {enroll.Discovered, "dhcp/firmware", false, enroll.Discovered},
		"loader fetched":                  {enroll.Discovered, "tftp", false, enroll.Booting},
		"script fetched":                  {enroll.Discovered, "http", false, enroll.Booting},
		"an unknown system asks":          {"", "dhcp/system", true, enroll.Discovered},
		"ready, renews its lease":         {enroll.Ready, "dhcp/system", false, enroll.Ready},
		"ready, power pressed":            {enroll.Ready, "dhcp/firmware", true, enroll.Booting},
		"failed, power pressed":           {enroll.Failed, "dhcp/loader", true, enroll.Booting},
		"enrolling, a late packet":        {enroll.Enrolling, "http", false, enroll.Enrolling},
		"first known by its enrolment":    {"", "enrolled", true, enroll.Discovered},
		"approved, and then fetches late": {enroll.Approved, "tftp", false, enroll.Approved},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := Machine{ID: "52-54-00-00-00-01"}
			if test.from != "" {
				m = m.Enter(test.from)
			}
			if got := m.Next(at(1, test.event), test.newBoot).Phase; got != test.want {
				t.Errorf("from %q by %s: %q, want %q", test.from, test.event, got, test.want)
			}
		})
	}
}

func TestEveryPhaseButTheLastSaysWhatItWaitsFor(t *testing.T) {
	for _, phase := range []enroll.Phase{enroll.Discovered, enroll.Booting, enroll.Enrolling, enroll.Approved, enroll.Assigned, enroll.Joining} {
		if (Machine{}).Enter(phase).WaitingFor == "" {
			t.Errorf("%s waits for nothing", phase)
		}
	}
	if waiting := (Machine{}).Enter(enroll.Ready).WaitingFor; waiting != "" {
		t.Errorf("ready waits for %q", waiting)
	}
}

func TestASilentMachineWaitsForASignOfLife(t *testing.T) {
	for _, test := range []struct {
		phase enroll.Phase
		quiet time.Duration
		want  string
	}{
		{enroll.Ready, 45 * time.Second, ""},
		{enroll.Ready, 46 * time.Second, "its next report; last heard of 45s ago"},
		{enroll.Joining, 80 * time.Second, "its services to start; last heard of 1m15s ago"},
		{enroll.Ready, 3 * time.Minute, "nothing was heard for 3m0s"},
		{enroll.Joining, 3 * time.Minute, "nothing was heard"},
		{enroll.Approved, time.Hour, "a cluster to claim it"},
	} {
		m := Machine{LastSeen: powerOn}.Enter(test.phase)
		if got := m.Waits(powerOn.Add(test.quiet)); !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s, quiet for %v: waits for %q, want %q", test.phase, test.quiet, got, test.want)
		}
	}
}

func TestLeader(t *testing.T) {
	says := func(id string, leader bool, quiet time.Duration) Machine {
		return Machine{ID: id, Phase: enroll.Ready, LastSeen: powerOn.Add(-quiet), Etcd: EtcdState{Voter: true, Leader: leader}}
	}
	for name, test := range map[string]struct {
		want     string
		machines []Machine
	}{
		"one says so":                         {"b", []Machine{says("a", false, 0), says("b", true, 25*time.Second)}},
		"one lost its power, another took it": {"c", []Machine{says("a", false, 0), says("b", true, 20*time.Second), says("c", true, time.Second)}},
		"in another order":                    {"a", []Machine{says("a", true, time.Second), says("b", true, 20*time.Second)}},
		"it is overdue":                       {"", []Machine{says("a", false, 0), says("b", true, 46*time.Second)}},
		"nobody":                              {"", []Machine{says("a", false, 0)}},
	} {
		if got := Leader(test.machines, powerOn); got != test.want {
			t.Errorf("%s: %q leads, want %q", name, got, test.want)
		}
	}
}

// FuzzTimeline adds any events in any order: each byte is one, its low bits
// what happened and its high bits how long after the one before, or before it.
func FuzzTimeline(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 0x15, 0xf3})
	f.Fuzz(func(t *testing.T, events []byte) {
		kinds := []string{"dhcp/firmware", "dhcp/loader", "dhcp/system", "tftp", "http", "kernel", "ready", "dhcp"}
		var line Timeline
		now := 0.0
		for _, b := range events {
			now += float64(int8(b)>>3) * 10
			line, _ = line.Add(at(now, kinds[b&7]))
		}
		if len(line.Boots) > maxBoots {
			t.Errorf("%d boots", len(line.Boots))
		}
		for _, boot := range line.Boots {
			if len(boot.Entries) == 0 || len(boot.Entries) > maxEntries {
				t.Errorf("a boot of %d entries", len(boot.Entries))
			}
			if !slices.IsSortedFunc(boot.Entries, func(a, b Entry) int { return a.At.Compare(b.At) }) {
				t.Errorf("entries out of order: %v", boots(line))
			}
		}
	})
}

func TestApproveRetiresTheKeyBefore(t *testing.T) {
	e := Enrolment{Acknowledged: powerOn}
	for i := range maxRetired + 10 {
		e = e.Approve(Key{Hash: fmt.Sprint(i)})
	}
	if len(e.Retired) != maxRetired || e.Retired[maxRetired-1] != fmt.Sprint(maxRetired+8) {
		t.Errorf("%d retired keys, the newest %s", len(e.Retired), e.Retired[len(e.Retired)-1])
	}
	if !e.Acknowledged.IsZero() {
		t.Errorf("acknowledged %v", e.Acknowledged)
	}
	if again := e.Approve(e.Approved); len(again.Retired) != maxRetired || again.Retired[maxRetired-1] != e.Retired[maxRetired-1] {
		t.Error("approving the same key retired it")
	}
}

func TestPastIsNeverInTheFuture(t *testing.T) {
	for age, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, -time.Minute: 0, 1000 * time.Hour: 24 * time.Hour} {
		if got := powerOn.Sub(Past(powerOn, age)); got != want {
			t.Errorf("age %v: %v before now, want %v", age, got, want)
		}
	}
}
