// Package inventory knows every machine that ever sent a packet: its phase, its
// facts, which key speaks for it, and its timeline. What becomes of a machine
// after an event is decided by pure functions; this package applies them to the
// store. The servers of the boot service tell it what they see (Observe), the
// packages enroll, assign and api read and change it.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"slipway/bootsvc/store"
	"slipway/bootsvc/timeline"
	"slipway/configs/enroll"
)

// The bounds of what strangers on the network can make it keep.
const (
	MaxMachines = 10_000 // beyond it, the strangers silent for longest are forgotten
	maxQueue    = 4096   // events that wait to be written
	maxDetail   = 200    // bytes of an event's detail
)

// Inventory is the set of machines. Its methods may be called concurrently.
type Inventory struct {
	store     *store.Store
	machines  store.Table[Machine]
	timelines store.Table[Timeline]
	log       *slog.Logger
	queue     chan observed
	dropped   prometheus.Counter
	limit     int // machines; MaxMachines
}

type observed struct {
	id    string
	event Event
}

// New returns the inventory that the store holds.
func New(s *store.Store, log *slog.Logger, reg prometheus.Registerer) *Inventory {
	v := &Inventory{
		store:     s,
		machines:  store.NewTable[Machine](s, "machines"),
		timelines: store.NewTable[Timeline](s, "timelines"),
		log:       log.With("unit", "inventory"),
		queue:     make(chan observed, maxQueue),
		limit:     MaxMachines,
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_events_dropped_total",
			Help: "Boot events that came faster than they could be written.",
		}),
	}
	reg.MustRegister(v.dropped)
	return v
}

// Observe takes an event from a server. It never blocks: when events come
// faster than they can be written, it counts and forgets them.
func (v *Inventory) Observe(_ context.Context, e timeline.Event) {
	id, err := enroll.ParseMachineID(e.MAC.String())
	if err != nil {
		return // nobody's event: a fetch from an address that has no lease
	}
	event := Event{Name: e.Name, Detail: e.Detail, At: e.At, Asker: e.Asker, Address: e.Address, UUID: e.UUID}
	select {
	case v.queue <- observed{id, event}:
	default:
		v.dropped.Inc()
	}
}

// Run writes what Observe took, until ctx ends.
func (v *Inventory) Run(ctx context.Context) error {
	for {
		select {
		case first := <-v.queue:
			v.write(ctx, v.gather(first))
		case <-ctx.Done():
			return nil
		}
	}
}

// gather takes all events that wait, so that a machine's burst is one write.
func (v *Inventory) gather(first observed) map[string][]Event {
	batch := map[string][]Event{first.id: {first.event}}
	for range len(v.queue) {
		next := <-v.queue
		batch[next.id] = append(batch[next.id], next.event)
	}
	return batch
}

func (v *Inventory) write(ctx context.Context, batch map[string][]Event) {
	for _, id := range slices.Sorted(maps.Keys(batch)) {
		if err := v.Record(ctx, id, batch[id]...); err != nil && ctx.Err() == nil {
			v.dropped.Add(float64(len(batch[id])))
			v.log.Warn("events lost", "machine", id, "error", err)
		}
	}
}

// Record adds events to a machine's timeline; a machine not seen before enters
// the inventory.
func (v *Inventory) Record(ctx context.Context, id string, events ...Event) error {
	_, err := v.Change(ctx, id, func(*Machine) ([]Event, error) { return events, nil })
	return err
}

// Change changes a machine and then adds the events that change returns, both
// or neither. It returns the machine as it is stored. change may run several
// times; it gets a machine without a phase when there was none.
func (v *Inventory) Change(ctx context.Context, id string, change func(*Machine) ([]Event, error)) (Machine, error) {
	return v.ChangeWith(ctx, id, func(_ *store.Tx, m *Machine) ([]Event, error) { return change(m) })
}

// ChangeWith is Change with more: what change reads and writes besides is a
// part of the same transaction.
func (v *Inventory) ChangeWith(ctx context.Context, id string, change func(*store.Tx, *Machine) ([]Event, error)) (Machine, error) {
	if err := v.admit(ctx, id); err != nil {
		return Machine{}, err
	}
	var before, after Machine
	err := v.store.Atomically(ctx, func(tx *store.Tx) (err error) {
		if before, err = loadOr(v.machines, tx, id, Machine{}); err != nil {
			return err
		}
		if err := v.ChangeIn(tx, id, func(m *Machine) ([]Event, error) { return change(tx, m) }); err != nil {
			return err
		}
		after, err = v.machines.Load(tx, id)
		return err
	})
	if err != nil {
		return Machine{}, fmt.Errorf("change machine %s: %w", id, err)
	}
	if after.Phase != before.Phase {
		v.log.Info("machine is "+string(after.Phase), "machine", id, "phase", after.Phase, "waits", after.WaitingFor, "words", after.Words())
	}
	return after, nil
}

// ChangeIn is Change as a part of a greater transaction.
func (v *Inventory) ChangeIn(tx *store.Tx, id string, change func(*Machine) ([]Event, error)) error {
	machine, err := loadOr(v.machines, tx, id, Machine{ID: id})
	if err != nil {
		return err
	}
	events, err := change(&machine)
	if err != nil {
		return err
	}
	if len(events) > 0 {
		if machine, err = v.add(tx, machine, events); err != nil {
			return err
		}
	}
	return v.machines.Save(tx, id, machine)
}

// LoadIn is Get as a part of a greater transaction: that takes effect only if
// the machine has not changed meanwhile.
func (v *Inventory) LoadIn(tx *store.Tx, id string) (Machine, error) {
	return v.machines.Load(tx, id)
}

// add writes events into the machine's timeline and returns what they make of it.
func (v *Inventory) add(tx *store.Tx, machine Machine, events []Event) (Machine, error) {
	line, err := loadOr(v.timelines, tx, machine.ID, Timeline{})
	if err != nil {
		return machine, err
	}
	for _, event := range events {
		event.Detail = event.Detail[:min(len(event.Detail), maxDetail)]
		var newBoot bool
		line, newBoot = line.Add(event)
		machine = machine.Next(event, newBoot)
	}
	return machine, v.timelines.Save(tx, machine.ID, line)
}

// Get returns a machine; an unknown one is store.ErrNotFound.
func (v *Inventory) Get(ctx context.Context, id string) (Machine, error) {
	return v.machines.Get(ctx, id)
}

// List returns all machines in the order of their discovery.
func (v *Inventory) List(ctx context.Context) ([]Machine, error) {
	machines, err := v.machines.List(ctx)
	slices.SortStableFunc(machines, func(a, b Machine) int { return a.FirstSeen.Compare(b.FirstSeen) })
	return machines, err
}

// Timeline returns what happened to a machine; an unknown one has no boots.
func (v *Inventory) Timeline(ctx context.Context, id string) (Timeline, error) {
	line, err := v.timelines.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return Timeline{}, nil
	}
	return line, err
}

// WaitFor blocks until check is done or fails, or ctx ends. It calls check at
// once and whenever any machine has changed.
func (v *Inventory) WaitFor(ctx context.Context, check func() (bool, error)) error {
	return v.machines.WaitFor(ctx, check)
}

// Machines is the table of the machines, to be waited for.
func (v *Inventory) Machines() store.Watched { return v.machines }

func loadOr[T any](table store.Table[T], tx *store.Tx, id string, missing T) (T, error) {
	document, err := table.Load(tx, id)
	if errors.Is(err, store.ErrNotFound) {
		return missing, nil
	}
	return document, err
}

// Past is the time that is age before now: never in the future, and at most a
// day ago, whatever a machine says.
func Past(now time.Time, age time.Duration) time.Time {
	return now.Add(-min(max(age, 0), 24*time.Hour))
}
