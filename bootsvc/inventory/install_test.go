package inventory

import (
	"errors"
	"strings"
	"testing"
	"time"

	"slipway/bootsvc/source"
	"slipway/bootsvc/timeline"
	"slipway/configs/enroll"
)

var sda = enroll.SystemDisk{Path: "/dev/sda", Booted: "a", Good: "a"}

func TestSource(t *testing.T) {
	for name, c := range map[string]struct {
		i    Installation
		want source.Source
	}{
		"never installed":            {Installation{}, source.Installer},
		"waits for an agreement":     {Installation{Wipe: enroll.WipeManifest{Hash: "1"}}, source.Installer},
		"installed":                  {Installation{Disk: sda}, source.Disk},
		"installed, not yet run":     {Installation{Disk: enroll.SystemDisk{Path: "/dev/sda"}}, source.Disk},
		"to be installed anew":       {Installation{Disk: sda, Reinstall: true}, source.Installer},
		"came back as often as may":  {Installation{Disk: sda, Returns: MaxReturns}, source.Disk},
		"came back once too often":   {Installation{Disk: sda, Returns: MaxReturns + 1}, source.Hold},
		"held, and freed to install": {Installation{Disk: sda, Returns: 9, Reinstall: true}, source.Installer},
	} {
		if got := (Machine{Installation: c.i}).Source(); got != c.want {
			t.Errorf("%s: boots from %s, want %s", name, got, c.want)
		}
		if got := (Machine{Installation: c.i, Enrolment: Enrolment{Released: true}}).Source(); got != source.Installer {
			t.Errorf("%s, and let go: boots from %s", name, got)
		}
	}
}

// TestComesBack: an installed machine that asks the network again and again,
// and never runs from its disk, is held; a word from its system frees it.
func TestComesBack(t *testing.T) {
	m := Machine{ID: "52-54-00-00-00-01", Phase: enroll.Ready}.OnDisk(sda, false)
	ask := Event{Name: "dhcp", Asker: timeline.Loader}
	for range MaxReturns {
		if m = m.Next(ask, true); m.Source() != source.Disk || m.WaitingFor != "its disk to boot" {
			t.Fatalf("after %d returns it boots from %s and waits for %q", m.Installation.Returns, m.Source(), m.WaitingFor)
		}
		m = m.Next(ask, false) // the second packet of the same boot
	}
	if ran := m.OnDisk(sda, false); ran.Installation.Returns != 0 {
		t.Errorf("it ran from its disk, and %d returns are counted", ran.Installation.Returns)
	}
	m = m.Next(Event{Name: "dhcp", Asker: timeline.Firmware}, true)
	if m.Source() != source.Hold || !strings.Contains(m.WaitingFor, "--from disk") || m.Waits(time.Time{}) != m.Held() {
		t.Errorf("it boots from %s and waits for %q", m.Source(), m.WaitingFor)
	}
	if freed := m.BootFrom(source.Disk); freed.Source() != source.Disk || freed.WaitingFor == m.WaitingFor {
		t.Errorf("freed, it boots from %s and waits for %q", freed.Source(), freed.WaitingFor)
	}
	again := m.BootFrom(source.Installer)
	if again.Source() != source.Installer || again.Next(ask, true).Installation.Returns != 0 {
		t.Errorf("to be installed anew, it boots from %s", again.Source())
	}
	if fresh := again.Approve(Key{Hash: "new"}); fresh.Installation.Disk.Path != "" || fresh.Source() != source.Installer {
		t.Errorf("with a new key it still lives on %s", fresh.Installation.Disk.Path)
	}
}

// TestFindsItselfInstalled: a machine whose installation was not heard of lives
// on its disk from then on; one that is started from RAM over and over, by a
// medium that nobody took out, is held.
func TestFindsItselfInstalled(t *testing.T) {
	m := Machine{ID: "52-54-00-00-00-01", Phase: enroll.Assigned}
	unheard := enroll.SystemDisk{Path: "/dev/sda", Good: "a"}
	for range MaxReturns {
		if m = m.OnDisk(unheard, true); m.Source() != source.Disk || m.Held() != "" {
			t.Fatalf("after %d times it boots from %s", m.Installation.Returns, m.Source())
		}
		m = m.OnDisk(unheard, false) // the report after that
	}
	if m = m.OnDisk(unheard, true); m.Held() == "" || m.WaitingFor != m.Held() {
		t.Errorf("it is not held, and waits for %q", m.WaitingFor)
	}
	if m = m.OnDisk(sda, false); m.Held() != "" {
		t.Error("it runs from its disk, and is held")
	}
}

func TestAgree(t *testing.T) {
	asks := Machine{ID: "52-54-00-00-00-01"}.Asks(enroll.WipeManifest{Hash: "ab12", Disks: []enroll.WipeDisk{{Path: "/dev/sda"}}})
	if !strings.Contains(asks.WaitingFor, "slipway machines wipe 52-54-00-00-00-01 --agree ab12") {
		t.Errorf("it waits for %q", asks.WaitingFor)
	}
	agreed, err := asks.Agree("AB12", "ann")
	if err != nil || agreed.Installation.Agreed != "ab12" || agreed.Installation.By != "ann" {
		t.Errorf("agreed: %+v, %v", agreed.Installation, err)
	}
	if same := agreed.Asks(agreed.Installation.Wipe); same.Installation.Agreed != "ab12" {
		t.Error("asked again for the same, it forgets the agreement")
	}
	changed := agreed.Asks(enroll.WipeManifest{Hash: "cd34"})
	if changed.Installation.Agreed != "" {
		t.Error("the agreement to one manifest holds for another")
	}
	var other ErrWipe
	for _, m := range []Machine{changed, {}} {
		if _, err := m.Agree("ab12", "ann"); !errors.As(err, &other) {
			t.Errorf("agreed to a manifest that is not there: %v", err)
		}
	}
	if _, err := (Machine{}).Agree("", "ann"); err == nil {
		t.Error("agreed to nothing")
	}
}
