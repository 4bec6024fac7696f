package assign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
)

// turnInterval is how often rotations are looked at though no machine reports.
const turnInterval = time.Minute

// Rotate begins a rotation, in its first phase; Turn moves it on. Beginning one
// that is under way changes nothing. The etcd CA of an etcd that someone else
// runs is ErrExternalEtcd.
func (o *Office) Rotate(ctx context.Context, name string, what What) (Cluster, error) {
	c, err := o.Get(ctx, name)
	if err != nil {
		return Cluster{}, err
	}
	if what == EtcdCA && c.Document.Etcd.External != nil {
		return Cluster{}, ErrExternalEtcd
	}
	_, err = o.keys.Update(ctx, c.Document.Name, func(k *Keys) (err error) {
		*k, err = k.Begin(c.Document.Name, what, o.now())
		return err
	})
	return c, err
}

// RotationStatus is a rotation under way, for people.
type RotationStatus struct {
	Rotation
	WaitingFor string // what keeps it in its phase; empty: nothing, it moves on
}

// Rotations shows what is being rotated in a cluster.
func (o *Office) Rotations(ctx context.Context, c Cluster) ([]RotationStatus, error) {
	keys, err := o.keys.Get(ctx, c.Document.Name)
	if err != nil || len(keys.Rotations) == 0 {
		return nil, err
	}
	machines, err := c.standing(keys, o.now())
	if err != nil {
		return nil, err
	}
	var all []RotationStatus
	for _, r := range keys.Rotations {
		all = append(all, RotationStatus{r, r.WaitingFor(machines, o.now())})
	}
	return all, nil
}

// RunRotations turns every rotation whenever a machine has reported, and each
// minute, until ctx ends. Several boot services may do so at once.
func (o *Office) RunRotations(ctx context.Context, log *slog.Logger) error {
	lookOn(ctx, func() error {
		once, cancel := context.WithTimeout(ctx, turnInterval)
		defer cancel()
		err := o.inventory.WaitFor(once, func() (bool, error) { return false, o.Turn(ctx, log) })
		if once.Err() != nil {
			return nil
		}
		return err
	}, func(err error) { log.Warn("rotations are not looked at", "unit", "rotation", "error", err) })
	return nil
}

// lookOn repeats look, which waits for changes itself, until ctx ends. Its errors
// are said, and a store that does not answer is asked again in a while.
func lookOn(ctx context.Context, look func() error, say func(error)) {
	for ctx.Err() == nil {
		err := look()
		if err == nil || ctx.Err() != nil {
			continue
		}
		say(err)
		select {
		case <-time.After(turnInterval):
		case <-ctx.Done():
		}
	}
}

// Turn moves on every rotation of every cluster, and that of the boot service's
// own CA, if it can be moved on. It looks
// at how things are, not at what has changed, so it may be called at any time.
func (o *Office) Turn(ctx context.Context, log *slog.Logger) error {
	all, err := o.clusters.List(ctx)
	if err != nil {
		return err
	}
	errs := []error{o.TurnAuthority(ctx)}
	for _, one := range all {
		passed, err := o.turn(ctx, one.Name)
		if err != nil {
			errs = append(errs, fmt.Errorf("turn the rotations of %s: %w", one.Name, err))
		}
		for _, r := range passed {
			log.Info("rotation", "unit", "rotation", "cluster", one.Name, "what", r.What, "phase", r.name())
		}
	}
	return errors.Join(errs...)
}

// turn moves on one cluster's rotations and notes it in the timelines of its
// control planes, both or neither. Between its look and its writing, machines
// may only have taken a newer config, which changes no verdict; if somebody
// changed the keys meanwhile, it leaves them for the next turn.
func (o *Office) turn(ctx context.Context, name string) (passed []Rotation, err error) {
	keys, err := o.keys.Get(ctx, name)
	if err != nil || len(keys.Rotations) == 0 {
		return nil, err
	}
	c, err := o.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	machines, err := c.standing(keys, o.now())
	if err != nil {
		return nil, err
	}
	next, passed, err := keys.Advance(machines, o.now())
	if err != nil || slices.EqualFunc(next.Rotations, keys.Rotations, Rotation.same) {
		return nil, err
	}
	err = o.store.Atomically(ctx, func(tx *store.Tx) error {
		now, err := o.keys.Load(tx, name)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(now, keys) {
			passed = nil
			return nil
		}
		return errors.Join(o.keys.Save(tx, name, next), o.noteRotations(tx, c, passed))
	})
	if err != nil {
		return nil, err
	}
	return passed, nil
}

// same says whether r is as another is.
func (r Rotation) same(other Rotation) bool {
	return r.What == other.What && r.Phase == other.Phase && r.Since.Equal(other.Since) && r.Taken.Equal(other.Taken)
}

// name is the phase in a word for people.
func (r Rotation) name() string {
	if r.Phase == "" {
		return "done"
	}
	return string(r.Phase)
}

func (o *Office) noteRotations(tx *store.Tx, c Cluster, passed []Rotation) error {
	var events []inventory.Event
	for _, r := range passed {
		events = append(events, inventory.Event{Name: "rotation", Detail: fmt.Sprintf("%s: %s", r.What, r.name()), At: o.now()})
	}
	if len(events) == 0 {
		return nil
	}
	for _, m := range c.controlPlanes() {
		err := o.inventory.ChangeIn(tx, m.ID, func(*inventory.Machine) ([]inventory.Event, error) { return events, nil })
		if err != nil {
			return err
		}
	}
	return nil
}

// standing is how the cluster's machines stand to the configs that keys make.
func (c Cluster) standing(keys Keys, now time.Time) ([]Standing, error) {
	var all []Standing
	for _, m := range c.Machines {
		s := Standing{ID: m.ID, Hostname: m.Hostname, Runs: m.Given.Digest != "" || !m.Enrolment.Acknowledged.IsZero()}
		if s.Runs {
			wanted, err := c.render(m, keys)
			if err != nil {
				return nil, err
			}
			s.Current, s.Missing = m.Applied == wanted.digest, lacks(m, c.stand(m, wanted, now), now)
		}
		all = append(all, s)
	}
	return all, nil
}

// lacks is what a machine needs to be well, and has not.
func lacks(m inventory.Machine, s stand, now time.Time) string {
	switch {
	case s.silent:
		return m.Waits(now)
	case !s.ready:
		return cmp.Or(m.WaitingFor, "its services to start")
	case s.member && !s.voter:
		return "its member of etcd to be a healthy voter"
	}
	return ""
}
