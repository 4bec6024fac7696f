package install

import (
	"errors"
	"fmt"
	"slices"
	"strings"
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
	trial := rec.Operation == upgradeName || rec.Operation == rollbackName
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
	case armed, rec.Operation == rollbackName && s.State(rec.Slot) == slot.Failed: // it was good before
		return CameBack
	}
	return Interrupted
}

// Why a trial failed whose system did not know it.
const (
	// noReason: it has not even been Started.
	noReason = "the new system wrote nothing to its state partition before it ended: a panic, a power cut, damage to its slot or that partition, or a hang that no hardware tells of"
	hung     = "the hardware watchdog restarted the machine: the new system hung"
)

// Unwell begins the reason of a trial that may end before there is a better one.
const Unwell = "it was not healthy; "

// Started notes that the running system, if it is on trial, has its state
// partition: should it end before it says more, this is known of it. It returns
// what the journal has.
func Started(j Journal, running disklayout.Slot, now time.Time) (Record, error) {
	rec, err := j.Load()
	if err != nil || !rec.Tries(running) || rec.Reason != "" {
		return rec, err
	}
	rec.Reason, rec.Updated = Unwell+"it had mounted its state partition, and its agent had not said yet what it waited for", now
	return rec, j.Save(rec)
}

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
	rec.Step, rec.Reason = "", ""
	rec.Outcome, rec.Updated = Succeeded, now
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

// Fallen notes that the machine came back from a trial, and why. bit: its hardware
// watchdog says that it ended what ran before.
func Fallen(j Journal, bit bool, now time.Time) error {
	rec, err := j.Load()
	if err != nil {
		return err
	}
	rec.Outcome, rec.Reason, rec.Updated = FellBack, fallen(rec.Reason, bit), now
	return j.Save(rec)
}

// fallen is why a trial failed, from what its system said last and what the
// watchdog says. A system that was given up has said it all.
func fallen(said string, bit bool) string {
	last, unwell := strings.CutPrefix(said, Unwell)
	switch {
	case said == "" && bit:
		return hung + " before it wrote anything to its state partition"
	case said == "":
		return noReason
	case unwell && bit:
		return hung + "; " + last
	}
	return said
}

// Lost notes that a slot was given up of which the journal has nothing: it was
// good and is not any more, or what the journal had of its trial is lost.
func Lost(j Journal, n disklayout.Slot, version, reason string, now time.Time) error {
	return j.Save(Record{
		Operation: upgradeName, Version: version, Slot: n, Started: now, Updated: now, Outcome: FellBack, Reason: reason,
	})
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
