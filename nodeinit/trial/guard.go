// Package trial ends the trial of a slot that does not show in time that it is
// good. The node agent shows it, and ends the trial in the journal then; but an
// agent that does not even start is a failure too, and so PID 1 runs the Guard.
package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"slipway/configs/disklayout"
	"slipway/nodeinit/install"
	"slipway/nodeinit/slot"
)

// Deadline is how long a machine has, from its kernel's start, to be healthy on
// a new slot, unless the upgrade said otherwise. Large ones take minutes until
// their devices are there.
const Deadline = 10 * time.Minute

// Guard restarts a machine that is not healthy in time on the slot that it
// tries; its loader goes back. It is a supervise.Service of PID 1.
//
// The journal says what is on trial. It is on a partition that the new system
// may fail to mount, or find damaged: then the loader's word counts, which is on
// another one, and which it goes back by.
type Guard struct {
	Journal   install.Journal
	Loader    func() (slot.Slots, error) // reads what the loader says
	Broken    error                      // what PID 1 could not prepare, such as the journal's mount; nil: nothing
	Booted    disklayout.Slot
	Version   string // of the running system
	SinceBoot func() time.Duration
	Restart   func() // begins a shutdown; may be called again
	Log       *slog.Logger
}

const (
	lookEvery = time.Second      // at the journal
	noting    = 10 * time.Second // how long it may take to keep the reason
)

// Run ends when there is no trial, or no more, or at its deadline. That neither
// journal nor loader can be read is an error: to restart a machine on a guess
// could be to restart it for ever.
func (g *Guard) Run(ctx context.Context, ready func()) error {
	ready()
	found, err := g.look()
	if err != nil || !found.tries {
		return err
	}
	// A disk that does not answer keeps it from looking, and from noting why.
	late := time.AfterFunc(Within(found.record)+noting-g.SinceBoot(), g.Restart)
	defer late.Stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for g.SinceBoot() < Within(found.record) {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if found, err = g.look(); err != nil || !found.tries {
			return err
		}
	}
	return g.giveUp(found)
}

// found is what is known of the running slot.
type found struct {
	tries  bool
	record install.Record
	silent error // why the journal says nothing and the loader was asked; nil: it does
}

// errNoJournal is of a partition with nothing on it, or of none: where it is not
// mounted there is an empty folder.
var errNoJournal = errors.New("it has no journal")

func (g *Guard) look() (found, error) {
	record, err := g.Journal.Load()
	if err == nil && record.Operation != "" {
		return found{tries: record.Tries(g.Booted), record: record}, nil
	}
	if err == nil {
		err = errNoJournal
	}
	slots, problem := g.Loader()
	if problem != nil {
		return found{}, fmt.Errorf("look for a trial: %w", errors.Join(err, problem))
	}
	return found{tries: slots.OnTrial(g.Booted), silent: err}, nil
}

// Within is how long after its kernel's start a system on trial must be healthy.
func Within(record install.Record) time.Duration {
	if record.Within > 0 {
		return record.Within
	}
	return Deadline
}

// giveUp restarts, with the reason in the journal. One that was damaged or lost
// is begun anew for it; without its partition the reason is on the console only.
func (g *Guard) giveUp(f found) error {
	why := fmt.Sprintf("it was not healthy %s after its start", Within(f.record))
	switch {
	case f.silent != nil:
		why += ": " + strings.ReplaceAll(errors.Join(f.silent, g.Broken).Error(), "\n", "; ")
	case f.record.Reason != "":
		why += ": " + strings.TrimPrefix(f.record.Reason, install.Unwell)
	}
	g.Log.Error("the new slot is given up; the machine restarts on the one before", "slot", g.Booted, "why", why)
	var err error
	if f.silent == nil {
		err = install.GiveUp(g.Journal, why, time.Now())
	} else {
		err = install.Lost(g.Journal, g.Booted, g.Version, why, time.Now())
	}
	g.Restart()
	return err
}
