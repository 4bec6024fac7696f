package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"slipway/bootsvc/store"
)

// ErrFull says that no further machine is taken in.
var ErrFull = errors.New("the inventory is full of machines that have enrolled or belong to a cluster")

// ErrClaimed says that a cluster has the machine.
var ErrClaimed = errors.New("a cluster has this machine")

// batch is how many machines one transaction forgets: an etcd of others takes
// 128 operations in one.
const batch = 32

// admit makes room for a machine not seen before. Anyone can invent hardware
// addresses: a flood of them pushes out other strangers, never a machine that
// has shown a key or that a cluster has claimed.
func (v *Inventory) admit(ctx context.Context, id string) error {
	if _, err := v.machines.Get(ctx, id); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	count, err := v.machines.Count(ctx)
	if err != nil || count < int64(v.limit) {
		return err
	}
	all, err := v.machines.List(ctx)
	if err != nil {
		return err
	}
	strangers := quietest(all, max(v.limit/4, 1))
	if len(strangers) == 0 {
		return fmt.Errorf("take in machine %s: %w", id, ErrFull)
	}
	v.log.Warn("the inventory is full: strangers are forgotten", "machines", count, "forgotten", len(strangers))
	for some := range slices.Chunk(strangers, batch) {
		if err := v.forget(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// stranger says that nothing is known of a machine but its packets.
func (m Machine) stranger() bool {
	return m.Cluster == "" && m.Enrolment.Pending.Hash == "" && m.Enrolment.Approved.Hash == ""
}

// quietest picks the strangers that were silent for longest.
func quietest(machines []Machine, most int) (ids []string) {
	strangers := slices.DeleteFunc(slices.Clone(machines), func(m Machine) bool { return !m.stranger() })
	slices.SortStableFunc(strangers, func(a, b Machine) int { return a.LastSeen.Compare(b.LastSeen) })
	for _, m := range strangers[:min(most, len(strangers))] {
		ids = append(ids, m.ID)
	}
	return ids
}

// forget drops machines that are strangers still.
func (v *Inventory) forget(ctx context.Context, ids []string) error {
	return v.store.Atomically(ctx, func(tx *store.Tx) error {
		for _, id := range ids {
			m, err := v.machines.Load(tx, id)
			switch {
			case errors.Is(err, store.ErrNotFound):
				continue
			case err != nil:
				return err
			case m.stranger():
				v.machines.Drop(tx, id)
				v.timelines.Drop(tx, id)
			}
		}
		return nil
	})
}

// Forget drops all that is known of a machine that no cluster has, its replaced
// keys too. An unknown one is store.ErrNotFound.
func (v *Inventory) Forget(ctx context.Context, id string) error {
	return v.store.Atomically(ctx, func(tx *store.Tx) error {
		m, err := v.machines.Load(tx, id)
		if err != nil {
			return fmt.Errorf("forget machine %s: %w", id, err)
		}
		if m.Cluster != "" {
			return fmt.Errorf("%w: it is %s of cluster %s; take it out first, slipway node reset %s", ErrClaimed, m.Hostname, m.Cluster, m.Hostname)
		}
		v.machines.Drop(tx, id)
		v.timelines.Drop(tx, id)
		return nil
	})
}
