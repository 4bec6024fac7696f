package sysdisk

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"slipway/configs/disklayout"
	"slipway/nodeinit/install"
	"slipway/nodeinit/slot"
)

// ErrRunning is of an image that runs already.
var ErrRunning = errors.New("the machine runs this image already")

// Order is what an upgrade is asked for with.
type Order struct {
	SHA256  string        // of the image's manifest, in hex
	Older   bool          // the image may be older than the one that runs
	Within  time.Duration // of its kernel's start it must be healthy; 0: trial.Deadline
	Prepare bool          // the loader is told nothing of it yet
}

// Upgrade puts an image into the slot that does not run, and has the loader
// boot it once. What was done before, by an order to prepare or until a power
// cut, is not done again.
func (d *Disk) Upgrade(ctx context.Context, order Order, tell Tell) (Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Booted == "" {
		return Image{}, ErrFromRAM
	}
	tell("look at the image", 0, 0)
	image, err := install.FetchImage(ctx, d.Source, order.SHA256)
	if err != nil {
		return Image{}, err
	}
	target := imageIn(d.Booted.Other(), image)
	if image.Root.Hash == d.RootHash {
		return d.running(), ErrRunning
	}
	loader, err := d.loader()
	if err != nil {
		return target, err
	}
	if err := image.Check(runtime.GOARCH, d.build(), order.Older, loader.Artifacts()); err != nil {
		return target, err
	}
	if err := keepImages(StateDir, d.running(), target); err != nil {
		return target, err
	}
	step := "clear"
	upgrade := install.Upgrade{
		System: install.System{
			Source: d.Source, Image: image, Architecture: runtime.GOARCH, Loader: d.loader, Open: d.openSlot,
			Wrote: func(done, total int64) { tell(step, done, total) },
		},
		Running: d.Booted, Within: order.Within, Prepare: order.Prepare, Journal: d.journal(), Now: time.Now,
		Told: func(name string) { step = name; tell(name, 0, 0) },
	}
	return target, upgrade.Operation().Run(ctx)
}

// Rollback has the loader boot the slot that does not run, once; see Order for within.
func (d *Disk) Rollback(ctx context.Context, within time.Duration) (Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Booted == "" {
		return Image{}, ErrFromRAM
	}
	state, err := d.state()
	if err != nil {
		return Image{}, err
	}
	rollback := install.Rollback{Running: d.Booted, Within: within, Loader: d.loader, Journal: d.journal(), Now: time.Now}
	return state.Image(d.Booted.Other()), rollback.Operation().Run(ctx)
}

// UseTry counts the try of a slot as used: the machine restarts into it without
// the loader, which then goes back at the restart after that.
func (d *Disk) UseTry() error {
	return d.change(func(s slot.Slots) (slot.Slots, error) {
		s, _ = s.Booted()
		return s, nil
	})
}

// Spoil has the loader boot the other slot from now on: the one that runs is
// damaged. It is an error if the other is not good.
func (d *Disk) Spoil(why string) error {
	err := d.change(func(s slot.Slots) (slot.Slots, error) {
		if s.State(d.Booted.Other()) != slot.Good {
			return s, slot.ErrNoFallback
		}
		return s.MarkedFailed(d.Booted)
	})
	if err != nil {
		return err
	}
	// Without the note the machine falls back all the same, and says less of why.
	_ = install.Lost(d.journal(), d.Booted, d.Version, why, time.Now())
	return nil
}

func (d *Disk) change(to func(slot.Slots) (slot.Slots, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	loader, err := d.loader()
	if err != nil {
		return err
	}
	now, err := loader.Read()
	if err != nil {
		return err
	}
	next, err := to(now)
	if err != nil || next == now {
		return err
	}
	return loader.Write(next)
}

// CameUp tells the loader that a system has come up from this disk: should this
// slot come to harm, it is counted from here how often it starts in vain.
func (d *Disk) CameUp() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	loader, err := d.loader()
	if err != nil {
		return err
	}
	return loader.CameUp(d.Booted)
}

// Recall judges, at the beginning of a boot, how the last new slot did. On trial
// the running one must be shown to be good, by Keep; failure is why the other
// was given up.
func (d *Disk) Recall() (onTrial bool, failure string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state, slots, err := d.read()
	if err != nil {
		return false, "", err
	}
	record, err := d.journal().Load()
	if err != nil {
		return false, "", err
	}
	switch install.Assess(record, d.Booted, slots) {
	case install.OnTrial, install.Works:
		return true, "", nil
	case install.Interrupted:
		err = install.Ran(d.journal(), record, time.Now())
	case install.CameBack:
		err = install.Fallen(d.journal(), d.Hung, time.Now())
	case install.TookOver:
		other := d.Booted.Other()
		err = install.Lost(d.journal(), other, state.Image(other).Version, fmt.Sprintf("it worked, and now started %d times in a row without coming up", slot.Starts), time.Now())
	}
	if err == nil {
		record, err = d.journal().Load()
	}
	if err != nil {
		return false, "", err
	}
	if record.Outcome != install.FellBack {
		return false, "", nil
	}
	version := record.Version
	if version == "" {
		version = "the image that was there"
	}
	return false, fmt.Sprintf("slot %s (%s): %s", record.Slot, version, record.Reason), nil
}

// Note keeps what the slot on trial still waits for: the reason, should nobody
// be there to give another.
func (d *Disk) Note(why string) error {
	return install.GiveUp(d.journal(), install.Unwell+"last seen waiting for "+why, time.Now())
}

// Keep has the loader boot the running slot from now on, and with it ends a trial.
func (d *Disk) Keep(onTrial bool) error {
	if !onTrial {
		return d.change(func(s slot.Slots) (slot.Slots, error) {
			if s.State(d.Booted) == slot.Good {
				return s, nil
			}
			return s.MarkedGood(d.Booted)
		})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	loader, err := d.loader()
	if err != nil {
		return err
	}
	return install.Keep(d.journal(), loader, d.Booted, time.Now())
}

func (d *Disk) openSlot(n disklayout.Slot) (install.Device, error) {
	dev, err := d.find()
	if err != nil {
		return nil, err
	}
	return openLabel(dev, n.Label())
}
