package main

import (
	"log/slog"
	"time"

	"slipway/nodeinit/early"
	"slipway/nodeinit/install"
	"slipway/nodeinit/lifecycle"
	"slipway/nodeinit/sysdisk"
	"slipway/nodeinit/trial"
)

// A start that hangs before the unit "trial" runs is to end as well.
const (
	// partLimit is for the way to the root image, which may wait three minutes for
	// its slot, and then for what is in memory.
	partLimit = 10 * time.Minute
	// diskLimit is for what is done to the disk, from the kernel's start on: to make
	// file systems, or to check both, may take half an hour each.
	diskLimit = 2 * time.Hour
	// guardFirst is how long the trial's guard, which knows more, has the word.
	guardFirst = time.Minute
)

// limit is how long after its kernel's start a machine must have mounted its disk.
func limit(onTrial bool, record install.Record) time.Duration {
	if onTrial {
		return trial.Within(record) + guardFirst
	}
	return diskLimit
}

// start makes the root ready for units.
type start struct {
	log      *slog.Logger
	watchdog *lifecycle.Watchdog
	timer    *time.Timer
}

// prepare returns what the machine booted from, and what is not as it should be.
func (s *start) prepare() (early.Booted, error) {
	s.timer = lifecycle.Limit{Log: s.log, Watchdog: s.watchdog, Restart: lifecycle.Restart}.Begin("the preparation of the root", partLimit)
	defer s.timer.Stop()
	booted, err := early.Prepare(s.log, early.DiskSteps{Complete: s.complete, Mounted: s.mounted})
	if booted.Slot != "" {
		s.tellHung()
	}
	return booted, err
}

// complete asks the loader for a trial: the journal is not mounted yet.
func (s *start) complete(b early.Booted) error {
	slots, err := sysdisk.Slots(b.Disk)
	if err != nil {
		s.log.Warn("look for a trial", "err", err)
	}
	s.timer.Reset(limit(err == nil && slots.OnTrial(b.Slot), install.Record{}) - sinceBoot())
	return sysdisk.Complete(b.Disk)
}

// mounted asks the journal, which knows better, if there is one.
func (s *start) mounted(b early.Booted) {
	record, err := install.Started(stateJournal, b.Slot, time.Now())
	if err != nil {
		s.log.Warn("note that the state partition is mounted", "err", err)
	}
	if record.Operation != "" {
		s.timer.Reset(limit(record.Tries(b.Slot), record) - sinceBoot())
	}
}

// tellHung leaves for the agent what the hardware watchdog says. One whose driver
// comes later is not asked.
func (s *start) tellHung() {
	hung, err := s.watchdog.Bit()
	if hung {
		s.log.Warn("the hardware watchdog says that it restarted the machine: what ran before hung")
		err = early.TellHung()
	}
	if err != nil {
		s.log.Warn("what the watchdog says of the restart is not known", "err", err)
	}
}

// stateJournal is that of the disk that the machine booted from.
const stateJournal = install.File(sysdisk.StateDir + "/" + install.JournalName)
