package trial

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slipway/nodeinit/install"
	"slipway/nodeinit/slot"
)

// story is of a machine that runs from slot b, with what its journal and its loader say.
type story struct {
	name     string
	record   install.Record
	text     string // of the journal, instead of the record
	loader   slot.Slots
	damaged  bool          // the loader cannot be read
	goodAt   time.Duration // 0: never
	restarts bool
	after    time.Duration
	why      string // the journal has afterwards, or the error says
}

func TestGuard(t *testing.T) {
	running := install.Record{Operation: "upgrade", Slot: "b", Reason: install.Unwell + "last seen waiting for unit etcd"}
	sooner := running
	sooner.Within = 2 * time.Minute
	var (
		good    = slot.Slots{A: slot.Good, B: slot.Good, Next: "b"}
		onTrial = slot.Slots{A: slot.Good, B: slot.Failed, Next: "a"}
		alone   = slot.Slots{A: slot.Failed, B: slot.Failed, Next: "b"}
	)
	const waits, cut = "last seen waiting for unit etcd", `{"operation":"upgr`
	for _, s := range []story{
		{name: "nothing ever", loader: good},
		{name: "an installation", record: install.Record{Operation: "install", Slot: "b"}, loader: onTrial},
		{name: "of the other slot", record: install.Record{Operation: "upgrade", Slot: "a"}, loader: onTrial},
		{name: "over", record: install.Record{Operation: "upgrade", Slot: "b", Outcome: install.Succeeded}, loader: onTrial},
		{name: "good in time", record: running, goodAt: 30500 * time.Millisecond, after: 31 * time.Second},
		{name: "never good", record: running, restarts: true, after: Deadline, why: "it was not healthy 10m0s after its start: " + waits},
		{name: "never good, and asked to be sooner", record: sooner, restarts: true, after: 2 * time.Minute, why: "it was not healthy 2m0s after its start: " + waits},
		{name: "never good, and the loader is damaged", record: running, damaged: true, restarts: true, after: Deadline, why: waits},

		{name: "no journal", loader: onTrial, restarts: true, after: Deadline, why: "it was not healthy 10m0s after its start: it has no journal; mount /state: no"},
		{name: "no journal, good in time", loader: onTrial, goodAt: 30500 * time.Millisecond, after: 31 * time.Second},
		{name: "no journal, no slot to go back to", loader: alone},
		{name: "no journal, no loader", damaged: true, why: "it has no journal\nthe loader is damaged"},
		{name: "a damaged journal", text: cut, loader: onTrial, restarts: true, after: Deadline, why: "unexpected end of JSON input; mount /state: no"},
		{name: "a damaged journal of a good slot", text: cut, loader: good},
		{name: "an empty journal", text: " ", loader: onTrial, restarts: true, after: Deadline, why: "unexpected end of JSON input"},
	} {
		t.Run(s.name, func(t *testing.T) { synctest.Test(t, s.tell) })
	}
}

func (s story) tell(t *testing.T) {
	path := filepath.Join(t.TempDir(), install.JournalName)
	journal := install.File(path)
	if err := journal.Save(s.record); err != nil {
		t.Fatal(err)
	}
	if s.text != "" {
		if err := os.WriteFile(path, []byte(s.text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s.goodAt > 0 {
		time.AfterFunc(s.goodAt, func() {
			s.loader, _ = s.loader.MarkedGood("b")
			if s.record.Operation != "" {
				s.record.Outcome = install.Succeeded
				journal.Save(s.record)
			}
		})
	}
	began, restarted := time.Now(), false
	g := &Guard{
		Journal: journal, Booted: "b", Version: "v2", Log: slog.New(slog.DiscardHandler), Broken: errors.New("mount /state: no"),
		Loader: func() (slot.Slots, error) {
			if s.damaged {
				return slot.Slots{}, errors.New("the loader is damaged")
			}
			return s.loader, nil
		},
		SinceBoot: func() time.Duration { return time.Since(began) }, Restart: func() { restarted = true },
	}
	err := g.Run(t.Context(), func() {})
	if took := time.Since(began); restarted != s.restarts || took != s.after {
		t.Errorf("restarted %t after %s, want %t after %s", restarted, took, s.restarts, s.after)
	}
	if !restarted {
		if (err != nil) != (s.why != "") || err != nil && !strings.Contains(err.Error(), s.why) {
			t.Errorf("%v, want %q", err, s.why)
		}
		return
	}
	if r, _ := journal.Load(); err != nil || !strings.Contains(r.Reason, s.why) {
		t.Errorf("%v, kept: %+v", err, r)
	}
}

// nowhere is the journal of a state partition that is not mounted.
type nowhere struct{}

func (nowhere) Load() (install.Record, error) { return install.Record{}, nil }
func (nowhere) Save(install.Record) error     { return errors.New("read-only file system") }

// TestGuardWithoutState: a reason that cannot be kept is on the console, and the
// machine restarts all the same.
func TestGuardWithoutState(t *testing.T) {
	var said strings.Builder
	restarted := false
	g := &Guard{
		Journal: nowhere{}, Booted: "b", Log: slog.New(slog.NewTextHandler(&said, nil)), Broken: errors.New("mount /state: bad superblock"),
		Loader:    func() (slot.Slots, error) { return slot.Slots{A: slot.Good, B: slot.Failed, Next: "a"}, nil },
		SinceBoot: func() time.Duration { return Deadline }, Restart: func() { restarted = true },
	}
	err := g.Run(t.Context(), func() {})
	if !restarted || err == nil || !strings.Contains(err.Error(), "read-only") || !strings.Contains(said.String(), "it has no journal; mount /state: bad superblock") {
		t.Errorf("restarted %t, %v, said %s", restarted, err, said.String())
	}
}

// deaf is the journal of a disk that answers no more, from its second look on.
type deaf struct {
	install.Journal
	looks   *int
	release chan struct{}
}

func (d deaf) Load() (install.Record, error) {
	if *d.looks++; *d.looks > 1 {
		<-d.release
	}
	return d.Journal.Load()
}

// TestGuardOfADeafDisk: a journal that cannot be asked is not what keeps the
// machine on a slot that is no good.
func TestGuardOfADeafDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := install.File(filepath.Join(t.TempDir(), install.JournalName))
		if err := journal.Save(install.Record{Operation: "upgrade", Slot: "b"}); err != nil {
			t.Fatal(err)
		}
		disk := deaf{journal, new(int), make(chan struct{})}
		began, restarted, ended := time.Now(), make(chan time.Duration, 2), make(chan error, 1)
		g := &Guard{
			Journal: disk, Booted: "b", Log: slog.New(slog.DiscardHandler),
			SinceBoot: func() time.Duration { return time.Since(began) }, Restart: func() { restarted <- time.Since(began) },
		}
		go func() { ended <- g.Run(t.Context(), func() {}) }()
		if after := <-restarted; after != Deadline+noting {
			t.Errorf("it restarted after %s", after)
		}
		close(disk.release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
