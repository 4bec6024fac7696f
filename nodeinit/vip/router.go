package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"slipway/nodeinit/netconf"
	"slipway/nodeinit/proc"
)

// Router is one of the machines among which the address moves.
type Router struct {
	File
	Look func(context.Context) uint8 // its priority now; may block some seconds
	Log  *slog.Logger
}

// Run takes part until ctx ends, and then gives the address up. An address left
// over from a run that was killed is taken off the link first: another machine
// may hold it by now.
func (r Router) Run(ctx context.Context) error {
	if err := netconf.DropAddress(r.Link, r.VirtualIP); err != nil {
		return err
	}
	w, err := openWire(r.Link, r.Address)
	if err != nil {
		return err
	}
	defer w.close()
	r.Log.Info("taking part", "address", r.VirtualIP.String(), "link", r.Link, "router", r.VRID(), "peers", r.Peers)
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, w.deafen)()
	events := make(chan Event)
	group.Go(func() error { return r.hear(ctx, w, events) })
	group.Go(func() error { r.watch(ctx, events); return nil })
	group.Go(func() error { return r.obey(ctx, w, events) })
	return errors.Join(group.Wait(), netconf.DropAddress(r.Link, r.VirtualIP))
}

// obey steps the machine through the events and does what it says.
func (r Router) obey(ctx context.Context, w *wire, events <-chan Event) error {
	m := Machine{Address: r.Address, Interval: interval, State: Init}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var event Event
		select {
		case <-ctx.Done():
			_, actions := m.Step(time.Now(), Prioritize(out))
			return r.do(w, actions)
		case event = <-events:
		case <-timer.C:
			event = Timeout{}
		}
		before := m
		var actions []Action
		m, actions = m.Step(time.Now(), event)
		if before.State != m.State || before.Priority != m.Priority {
			r.Log.Info(string(m.State), "before", string(before.State), "priority", m.Priority, "event", fmt.Sprintf("%T%+[1]v", event))
		}
		if err := r.do(w, actions); err != nil {
			return err
		}
		timer.Stop()
		if !m.Deadline.IsZero() {
			timer.Reset(time.Until(m.Deadline))
		}
	}
}

// do acts. What cannot be sent is lost, as on any network; a link that does not
// take the address is an error.
func (r Router) do(w *wire, actions []Action) (err error) {
	for _, action := range actions {
		var lost error
		switch a := action.(type) {
		case Hold:
			err = netconf.HoldAddress(r.Link, r.VirtualIP)
		case Drop:
			err = netconf.DropAddress(r.Link, r.VirtualIP)
		case Send:
			lost = w.send(Advert{VRID: r.VRID(), Priority: uint8(a), Interval: interval, Addresses: []netip.Addr{r.VirtualIP}})
		case Announce:
			lost = w.announce(r.VirtualIP)
		}
		if lost != nil {
			r.Log.Warn("not sent", "what", fmt.Sprintf("%T", action), "err", lost)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// watch tells the machine's priority when it changes.
func (r Router) watch(ctx context.Context, events chan<- Event) {
	rest := time.NewTimer(0)
	defer rest.Stop()
	var now opinion
	for {
		began := time.Now()
		next := now.look(r.Look(ctx))
		if ctx.Err() != nil {
			return
		}
		if next.priority != now.priority && !tell(ctx, events, Prioritize(next.priority)) {
			return
		}
		now = next
		rest.Reset(proc.Rest(looks, time.Since(began)))
		select {
		case <-ctx.Done():
			return
		case <-rest.C:
		}
	}
}

// hear tells what the others advertise.
func (r Router) hear(ctx context.Context, w *wire, events chan<- Event) error {
	complain := rate.Sometimes{First: 1, Interval: time.Minute}
	for {
		from, hops, payload, err := w.receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("listen on %s: %w", r.Link, err)
		}
		heard, err := r.accept(from, hops, payload)
		if err != nil {
			complain.Do(func() { r.Log.Warn("advertisement not regarded", "from", from.String(), "err", err) })
			continue
		}
		if !tell(ctx, events, heard) {
			return nil
		}
	}
}

func tell(ctx context.Context, events chan<- Event, e Event) bool {
	select {
	case events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// accept checks what came in (RFC 9568, 7.1), and that a control plane sent it.
func (r Router) accept(from netip.Addr, hops int, payload []byte) (Heard, error) {
	a, err := parse(from, payload)
	switch {
	case err != nil:
		return Heard{}, err
	case hops != ttl:
		return Heard{}, fmt.Errorf("TTL %d: it comes from another network", hops)
	case !slices.Contains(r.Peers, from):
		return Heard{}, fmt.Errorf("it is not one of the other control planes, but about virtual router %d", a.VRID)
	case a.VRID != r.VRID() || !slices.Equal(a.Addresses, []netip.Addr{r.VirtualIP}):
		return Heard{}, fmt.Errorf("it is about virtual router %d, %v", a.VRID, a.Addresses)
	}
	return Heard{From: from, Priority: a.Priority, Interval: a.Interval}, nil
}
