// Package trial ends the trial of a slot that does not show in time that it is
// good. The node agent shows it, and ends the trial in the journal then; but an
// agent that does not even start is a failure too, and so PID 1 runs the Guard.
package trial

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"slipway/configs/disklayout"
	"slipway/nodeinit/install"
)

// Deadline is how long a machine has, from its kernel's start, to be healthy on
// a new slot, unless the upgrade said otherwise. Large ones take minutes until
// their devices are there.
const Deadline = 10 * time.Minute

// Guard restarts a machine that is not healthy in time on the slot that it
// tries; its loader goes back. It is a supervise.Service of PID 1.
type Guard struct {
	Journal   install.Journal
	Booted    disklayout.Slot
	SinceBoot func() time.Duration
	Restart   func() // begins a shutdown
	Log       *slog.Logger
}

// lookEvery is how often the journal is looked at.
const lookEvery = time.Second

// Run ends when there is no trial, or no more, or at its deadline.
func (g *Guard) Run(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		record, err := g.Journal.Load()
		if err != nil {
			return err
		}
		if !tries(record, g.Booted) {
			return nil
		}
		if g.SinceBoot() >= deadline(record) {
			return g.giveUp(record)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tries reports whether the slot that runs is the one on trial.
func tries(record install.Record, booted disklayout.Slot) bool {
	return (record.Operation == "upgrade" || record.Operation == "rollback") && record.Outcome == "" && record.Slot == booted
}

func deadline(record install.Record) time.Duration {
	if record.Within > 0 {
		return record.Within
	}
	return Deadline
}

func (g *Guard) giveUp(record install.Record) error {
	why := fmt.Sprintf("it was not healthy %s after its start", deadline(record))
	if record.Reason != "" {
		why += ": " + strings.TrimPrefix(record.Reason, install.Unwell)
	}
	g.Log.Error("the new slot is given up; the machine restarts on the one before", "slot", record.Slot, "why", why)
	err := install.GiveUp(g.Journal, why, time.Now())
	g.Restart()
	return err
}
