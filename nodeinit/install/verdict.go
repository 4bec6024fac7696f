package install

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot"
)

// Verdict is what a boot says about the operation before it.
type Verdict string

// The verdicts.
const (
	Settled     Verdict = "settled"     // there is nothing to judge
	OnTrial     Verdict = "on trial"    // the new system runs, and must show that it works: Keep or GiveUp
	Works       Verdict = "works"       // it has shown so already, only the journal does not know: Keep
	CameBack    Verdict = "came back"   // the new system was tried, and the machine is back: Fallen
	Interrupted Verdict = "interrupted" // the operation ended before its last step: run it again
	Waiting     Verdict = "waiting"     // the next boot is the try
	TookOver    Verdict = "took over"   // the loader gave up the other slot, which was good once: Lost
)

// Assess judges, at the beginning of a boot, what the journal has as the
// latest operation. It is pure.
func Assess(rec Record, running disklayout.Slot, s slot.Slots) Verdict {
	trial := rec.Operation == upgradeName || rec.Operation == "rollback"
	armed := slices.Contains(rec.Done, armStep)
	lost := s.State(running) == slot.Good && s.State(running.Other()) == slot.Failed
	switch {
	case lost && (rec.Outcome == Succeeded || rec.Outcome == FellBack && rec.Slot == running):
		return TookOver
	case rec.Operation == "" || rec.Outcome != "":
		return Settled
	case !trial:
		return Interrupted
	case running == rec.Slot && s.State(running) == slot.Good:
		return Works
	case running == rec.Slot:
		return OnTrial
	case s.State(rec.Slot) == slot.Trying && s.Next == rec.Slot:
		return Waiting
	case armed, rec.Operation == "rollback" && s.State(rec.Slot) == slot.Failed: // it was good before
		return CameBack
	}
	return Interrupted
}

// noReason is why a trial failed whose system could not say it.
const noReason = "the new system ended, or was ended, before it could say why: a panic, a hang, a power cut, damage to its slot, or a state partition that it could not mount"

// Unwell begins the reason of a trial that may end before there is a better one.
const Unwell = "it was not healthy; "

// Keep marks the running slot good, and after an upgrade puts its loader in the
// place of the old one. The mark comes first: without the note the next boot
// finds out by itself, and does the rest. A loader that cannot be replaced is
// an error, and noted; the slot is good all the same. It may be repeated.
func Keep(j Journal, l slot.Loader, running disklayout.Slot, now time.Time) error {
	if err := change(l, func(s slot.Slots) (slot.Slots, error) { return s.MarkedGood(running) }); err != nil {
		return err
	}
	rec, err := j.Load()
	if err != nil || rec.Outcome != "" {
		return err
	}
	if rec.Operation == upgradeName { // the older system of a rollback has an older loader
		if err = l.Install(running); err != nil {
			err = fmt.Errorf("slot %s is good, but its loader is not in place: %w", running, err)
			rec.Error = err.Error()
		}
	}
	rec.Step = ""
	rec.settle(Succeeded, "", now)
	return errors.Join(err, j.Save(rec))
}

// GiveUp notes why the running system, which is on trial, does not pass. The
// caller restarts the machine, which falls back.
func GiveUp(j Journal, reason string, now time.Time) error {
	rec, err := j.Load()
	if err != nil {
		return err
	}
	rec.Reason, rec.Updated = reason, now
	return j.Save(rec)
}

// Fallen notes that the machine came back from a trial: with the reason that
// the new system gave, or the one that the caller knows, such as what the
// kernel kept of a panic.
func Fallen(j Journal, reason string, now time.Time) error {
	rec, err := j.Load()
	if err != nil {
		return err
	}
	rec.settle(FellBack, reason, now)
	return j.Save(rec)
}

// Lost notes that a slot was given up of which the journal has nothing: it was
// good and is not any more, or what the journal had of its trial is lost.
func Lost(j Journal, n disklayout.Slot, version, reason string, now time.Time) error {
	return j.Save(Record{
		Operation: upgradeName, Version: version, Slot: n, Started: now, Updated: now, Outcome: FellBack, Reason: reason,
	})
}

func (r *Record) settle(outcome Outcome, reason string, now time.Time) {
	r.Outcome, r.Updated = outcome, now
	switch {
	case outcome == Succeeded:
		r.Reason = ""
	case r.Reason == "" && reason == "":
		r.Reason = noReason
	case r.Reason == "":
		r.Reason = reason
	}
}

// Ran notes of an installation that it came to its end: the system runs from
// its disk. A power cut may have come between its last step and the note of that,
// and without it the installer would take the disk for one that it may write over.
func Ran(j Journal, rec Record, now time.Time) error {
	if rec.Operation != installName {
		return nil
	}
	rec.Outcome, rec.Updated = Succeeded, now
	return j.Save(rec)
}
