package agent

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/configs/wipe"
	"slipway/nodeinit/lifecycle"
	"slipway/nodeinit/sysdisk"
)

// fakeDisk is a system disk by hand.
type fakeDisk struct {
	install func(*machine.Config, map[string][]byte) error
	spoil   error // why no other slot can be booted
	onTrial bool
	failure string
	kept    chan bool     // on trial
	hold    chan struct{} // an order to prepare comes and goes here; nil: it does not stop
	found   *sysdisk.Found
	wiped   chan wipe.How
	reset   wipe.How // noted before

	mu      sync.Mutex
	state   sysdisk.State
	gone    error // why it cannot be looked at
	noted   string
	usedTry bool
}

// newFakeDisk has a good slot a and another image in b.
func newFakeDisk() *fakeDisk {
	return &fakeDisk{
		kept: make(chan bool, 8), wiped: make(chan wipe.How, 8),
		state: sysdisk.State{Path: "/dev/vda", Good: "a", Slots: []sysdisk.Image{{Slot: "a", Version: "1.0", RootHash: "aa", Kubernetes: "v1.37.1"}}},
	}
}

func (d *fakeDisk) Install(_ context.Context, config *machine.Config, files map[string][]byte, tell sysdisk.Tell) (sysdisk.State, error) {
	if err := d.install(config, files); err != nil {
		return sysdisk.State{}, err
	}
	tell("root image", 50, 100)
	return d.State()
}

func (d *fakeDisk) Adopt(string, machine.Size) error { return nil }

func (d *fakeDisk) Find(context.Context) (*sysdisk.Found, error) { return d.found, nil }

func (d *fakeDisk) Wipe(_ context.Context, f *sysdisk.Found) error {
	d.wiped <- cmp.Or(f.Reset, wipe.Metadata)
	return nil
}

func (d *fakeDisk) NoteReset(how wipe.How) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reset = how
	return nil
}

func (d *fakeDisk) Resetting() (wipe.How, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reset, nil
}

func (d *fakeDisk) State() (sysdisk.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state, d.gone
}

func (d *fakeDisk) goes(why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = why
}

func (d *fakeDisk) Upgrade(_ context.Context, order sysdisk.Order, tell sysdisk.Tell) (sysdisk.Image, error) {
	tell("look at the image", 0, 0)
	if order.Prepare && d.hold != nil {
		d.hold <- struct{}{}
		<-d.hold
	}
	switch order.SHA256 {
	case "none":
		return sysdisk.Image{}, errors.New("there is no such image")
	case "running":
		return sysdisk.Image{}, sysdisk.ErrRunning
	}
	tell("root image", 0, 100)
	tell("root image", 100, 100)
	return sysdisk.Image{Slot: "b", Version: "2.0", RootHash: order.SHA256}, nil
}

func (d *fakeDisk) Rollback(context.Context, time.Duration) (sysdisk.Image, error) {
	return sysdisk.Image{Slot: "b", Version: "0.9", RootHash: "bb"}, nil
}

func (d *fakeDisk) UseTry() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.usedTry = true
	return nil
}

func (d *fakeDisk) CameUp() error { return nil }

func (d *fakeDisk) Recall() (bool, string, error) { return d.onTrial, d.failure, nil }

func (d *fakeDisk) Note(why string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noted = why
	return nil
}

func (d *fakeDisk) lastNote() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.noted
}

func (d *fakeDisk) Keep(onTrial bool) error { d.kept <- onTrial; return nil }

func (d *fakeDisk) Spoil(string) error { return d.spoil }

func (d *fakeDisk) Kernel(disklayout.Slot) (lifecycle.Kernel, error) {
	return lifecycle.Kernel{}, errors.New("no kernel in a test")
}

func (d *fakeDisk) CanWipe(how wipe.How) error {
	if how == wipe.Discard {
		return errors.New("the disk has no discard")
	}
	return nil
}
