package install

import (
	"context"
	"time"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot"
)

// Upgrade brings another system into the slot that does not run, and gives it
// one try. The caller restarts the machine afterwards, and at its next boot
// asks Assess how it went. The running system is not touched.
//
// It may be done in two parts: Prepare leaves a slot that is filled and cannot
// boot. An Upgrade to the same image then finds in the journal that only the
// last step is left; to another one, or after any other operation, it begins anew.
type Upgrade struct {
	System
	Running disklayout.Slot
	Within  time.Duration // see Record
	Prepare bool          // all but the last step

	Journal Journal
	Now     func() time.Time
	Told    func(step string)
}

// upgradeName is the operation's in the journal.
const upgradeName = "upgrade"

// armStep is the last step: after it the next boot is of the new system.
const armStep = "arm"

// Operation returns the steps.
func (u Upgrade) Operation() Operation {
	n := u.Running.Other()
	steps := []Step{{"clear", func(context.Context) error { return u.clear(n) }}}
	steps = append(steps, u.System.steps(n)...)
	if !u.Prepare {
		steps = append(steps, Step{armStep, func(context.Context) error {
			return arm(u.Loader, func(s slot.Slots) (slot.Slots, error) { return s.Armed(n) })
		}})
	}
	return Operation{
		Name: upgradeName, Steps: steps,
		About:   Record{Key: u.Image.SHA256, Version: u.Image.Version, Slot: n, Within: u.Within},
		Journal: u.Journal, Now: u.Now, Told: u.Told,
	}
}

// clear makes the slot empty. If the running one is not known to be good, as
// after an earlier trial that nobody judged, the other is the last good one and
// Cleared refuses.
func (u Upgrade) clear(n disklayout.Slot) error {
	loader, err := u.Loader()
	if err != nil {
		return err
	}
	return change(loader, func(s slot.Slots) (slot.Slots, error) { return s.Cleared(n) })
}

func arm(open func() (slot.Loader, error), to func(slot.Slots) (slot.Slots, error)) error {
	loader, err := open()
	if err != nil {
		return err
	}
	return change(loader, to)
}

// Rollback gives the slot that ran before one try.
type Rollback struct {
	Running disklayout.Slot
	Within  time.Duration // see Record
	Loader  func() (slot.Loader, error)

	Journal Journal
	Now     func() time.Time
}

const rollbackName = "rollback"

// Operation returns the steps. It has no key: what it goes back to is what is
// there. A second rollback is another one, also when the first was never judged.
func (r Rollback) Operation() Operation {
	return Operation{
		Name: rollbackName, Now: r.Now, Journal: r.Journal,
		About: Record{Key: r.Now().UTC().Format(time.RFC3339Nano), Slot: r.Running.Other(), Within: r.Within},
		Steps: []Step{{armStep, func(context.Context) error {
			return arm(r.Loader, func(s slot.Slots) (slot.Slots, error) { return s.RolledBack(r.Running) })
		}}},
	}
}
