package agent

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"slipway/configs/disklayout"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/slot"
)

// rootWatch sees to it that a machine whose root image is not what it was goes
// to its other slot. It needs neither network nor state: programs of the root
// image are what both come by.
type rootWatch struct {
	booted    disklayout.Slot
	disk      systemDisk
	corrupted func() (bool, error)
	console   *console
	pid1      nodev1connect.NodeServiceClient

	mu  sync.Mutex
	why string // what is wrong with the root; empty: nothing
}

// watchRoot is of this machine.
func (a *agent) watchRoot() *rootWatch {
	pid1 := &http.Client{Transport: unixTransport(a.socket)}
	return &rootWatch{
		booted: a.booted, disk: a.disk, corrupted: a.corrupted, console: a.console,
		pid1: nodev1connect.NewNodeServiceClient(pid1, "http://init"),
	}
}

// lookAtRoot is for an agent that cannot even start: its state may be missing
// because a program that mounts it is what is corrupted.
func (a *agent) lookAtRoot(ctx context.Context) error {
	if a.booted == "" {
		return nil
	}
	return a.watchRoot().look(ctx)
}

func (w *rootWatch) problem() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why
}

// run looks until ctx ends.
func (w *rootWatch) run(ctx context.Context) error {
	tick := time.NewTicker(lookAtHealth)
	defer tick.Stop()
	warned := ""
	for w.problem() == "" {
		if err := w.look(ctx); err != nil && err.Error() != warned {
			warned = err.Error()
			w.console.log.Warn("look at the root image", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	<-ctx.Done()
	return nil
}

// look has the machine boot the other slot if its root is corrupted: programs
// that need what is corrupted fail from now on. Without another slot it goes on
// as it can.
func (w *rootWatch) look(ctx context.Context) error {
	bad, err := w.corrupted()
	if err != nil || !bad {
		return err
	}
	const why = "a block of its root image is not what its root hash says"
	w.console.say("slot %s: %s", w.booted, why)
	if err = w.disk.Spoil(why); errors.Is(err, slot.ErrNoFallback) {
		w.console.say("no other slot to go to, the machine goes on as it can: %v", err)
	} else if err == nil {
		_, err = w.pid1.Reboot(ctx, connect.NewRequest(&nodev1.RebootRequest{}))
	}
	if err != nil && !errors.Is(err, slot.ErrNoFallback) {
		return err // it is tried again
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.why = "slot " + string(w.booted) + ": " + why
	return nil
}
