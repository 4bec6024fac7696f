package assign

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/bootsvc/authority"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/configs/wipe"
)

// Config is what a machine gets: its config as YAML, or what it waits for.
type Config struct {
	YAML       []byte
	WaitingFor string
	Machine    inventory.Machine
	Prepare    bool     // it may start what every node runs while it waits
	Unchanged  bool     // what it has is as it is to be, or its turn has not come
	Released   bool     // no cluster has it any more: it is to reset itself
	Forced     bool     // though etcd loses its quorum by that
	Wipe       wipe.How // of its disk, if it is installed
}

// asker is a machine that asks for its config.
type asker struct {
	id      string
	keyHash string // the key that it proved
	have    string // SHA-256, hex, of the config that it has stored; empty: none
	// prepared: it runs what every node runs, or gave that up.
	prepared bool
	// matter are the ids of what the last answer was made of: the machine, its
	// cluster, whoever may go before it, and the CA that signs its certificate.
	matter map[string]bool
}

// Has is what a machine has that asks for its config.
type Has struct {
	Digest   string // SHA-256, hex, of the config that it has stored; empty: none
	Prepared bool   // it runs what every node runs, or gave that up
}

// Fetch blocks until there is another config for the machine than the one it
// has, or for at most wait: then it says what is missing. keyHash is the key
// that the machine proved; what it has, it says.
func (o *Office) Fetch(ctx context.Context, id, keyHash string, has Has, wait time.Duration) (Config, error) {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	a := asker{id: id, keyHash: keyHash, have: has.Digest, prepared: has.Prepared}
	var config Config
	asked := false
	// Only the waiting is limited: a question that the limit cuts off fails with an
	// error of the store's, which may know of its end before we do.
	err := o.store.WaitFor(limited, func(id string) bool { return a.matter[id] }, func() (_ bool, err error) {
		config, err = o.offer(ctx, &a)
		asked = true
		return config.YAML != nil || config.Released || config.Prepare, err
	}, o.inventory.Machines(), o.clusters, o.keys, o.CA.Table())
	switch {
	case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
		return config, err
	case asked:
		return config, nil
	}
	return o.offer(ctx, &a) // a busy store did not even begin to watch in that time
}

// offer decides what the machine gets now. What it is given is noted in the
// same transaction, so that two machines that ask at once do not both find that
// it is their turn.
func (o *Office) offer(ctx context.Context, a *asker) (config Config, err error) {
	err = o.store.Atomically(ctx, func(tx *store.Tx) error {
		config, err = o.offerIn(tx, a)
		return err
	})
	return config, err
}

// unknownHere is of a machine that has a config which nobody here gave it, or
// remembers: the boot service's state was lost, or the machine was forgotten.
// What it keeps may be all that is left of its cluster, so it is not told to
// reset itself.
const unknownHere = "a person: it has the config of a cluster that is not known here; restore the boot service's state, or slipway node reset"

func (o *Office) offerIn(tx *store.Tx, a *asker) (Config, error) {
	a.matter = map[string]bool{a.id: true, authority.ID: true}
	m, err := o.inventory.LoadIn(tx, a.id)
	if err != nil {
		return Config{}, err
	}
	switch {
	case m.Enrolment.Approved.Hash != a.keyHash:
		return Config{}, ErrReplaced
	case a.have == "" && !m.Enrolment.Acknowledged.IsZero():
		return Config{}, ErrDelivered
	case a.have != "" && m.Enrolment.Released:
		return Config{Machine: m, Released: true, Forced: m.Enrolment.Forced, Wipe: m.Enrolment.Wipe}, nil
	case a.have != "" && m.Cluster == "":
		return Config{Machine: m, Unchanged: true, WaitingFor: unknownHere}, nil
	case m.Cluster == "":
		return Config{Machine: m, WaitingFor: "a cluster to claim this machine"}, nil
	}
	c, keys, err := o.settle(tx, m.Cluster)
	if err != nil {
		return Config{}, err
	}
	a.matter[m.Cluster] = true
	for _, plane := range c.Machines {
		a.matter[plane.ID] = true
	}
	config, err := o.answer(tx, a, c, keys, m)
	if err != nil || a.have != "" || config.WaitingFor == "" {
		return config, err
	}
	config.Prepare = !a.prepared && c.prepares(m, o.now())
	if config.WaitingFor == m.WaitingFor && m.Prepared == a.prepared {
		return config, nil
	}
	m.WaitingFor, m.Prepared = config.WaitingFor, a.prepared // for those who look at the machine
	return config, o.inventory.ChangeIn(tx, m.ID, func(kept *inventory.Machine) ([]inventory.Event, error) {
		*kept = m
		return nil, nil
	})
}

// settle reads a cluster with its control planes and members of etcd, decides
// who starts etcd, and stores that before any config says so.
func (o *Office) settle(tx *store.Tx, name string) (Cluster, Keys, error) {
	c, kept, err := o.load(tx, name)
	if err == nil && c.unaddressed() == "" {
		c.Etcd, err = o.advance(tx, kept, c.members())
	}
	if err != nil {
		return Cluster{}, Keys{}, err
	}
	keys, err := o.keys.Load(tx, name)
	return c, keys, err
}

// advance stores etcd's next state. That its data came from a snapshot and is
// lost, so that it is restored once more, stands in the machine's timeline.
func (o *Office) advance(tx *store.Tx, kept record, members []inventory.Machine) (Etcd, error) {
	before := kept.Etcd.Generation
	kept.Etcd = kept.Etcd.next(members)
	if grant := kept.Etcd.Grant; kept.Etcd.Generation > before && grant.Snapshot != "" {
		return kept.Etcd, o.begin(tx, kept, fmt.Sprintf("from the same snapshot as generation %d, whose only data is gone: what was written since the snapshot is lost", before))
	}
	return kept.Etcd, o.clusters.Save(tx, kept.Name, kept)
}

// answer is what a machine of a cluster gets.
func (o *Office) answer(tx *store.Tx, a *asker, c Cluster, keys Keys, m inventory.Machine) (Config, error) {
	unchanged := Config{Machine: m, Unchanged: a.have != ""}
	if missing := c.unaddressed(); missing != "" {
		unchanged.WaitingFor = missing + " to enrol"
		return unchanged, nil
	}
	words, gone := c.Etcd.trouble(c.members())
	if gone && a.have == "" && m.Role != machine.Worker {
		return Config{Machine: m, WaitingFor: words}, nil
	}
	if first := c.before(m, o.now()); first != "" && a.have == "" {
		return Config{Machine: m, WaitingFor: first}, nil
	}
	m = o.imaged(c, m)
	wanted, err := c.render(m, keys)
	switch {
	case err != nil:
		return unchanged, err
	case wanted.digest == a.have:
		return unchanged, o.give(tx, m, wanted)
	case a.have != "":
		if unchanged.WaitingFor, err = c.turn(m, wanted, keys, o.now()); err != nil || unchanged.WaitingFor != "" {
			return unchanged, err
		}
	}
	if a.have == "" { // nothing of it runs yet
		m.Applied, m.Etcd, m.LastSeen = "", inventory.EtcdState{}, o.now()
		if m.Phase == enroll.Assigned { // from now on, others wait for it
			m = m.Enter(enroll.Joining)
		}
	}
	return Config{Machine: m, YAML: wanted.text}, o.give(tx, m, wanted)
}

// give notes which config the machine has, or is about to have.
func (o *Office) give(tx *store.Tx, m inventory.Machine, r handout) error {
	var events []inventory.Event
	if m.Given.Digest != r.digest && m.Applied != "" {
		events = []inventory.Event{{Name: "reconfigured", Detail: m.Hostname, At: o.now()}}
	}
	m.Given = inventory.Given{Digest: r.digest, Generation: r.generation}
	return o.inventory.ChangeIn(tx, m.ID, func(kept *inventory.Machine) ([]inventory.Event, error) {
		*kept = m
		return events, nil
	})
}

// Acknowledge records that the machine has stored a config. It may be repeated.
// Which one it is, the next Fetch tells.
func (o *Office) Acknowledge(ctx context.Context, id, keyHash string) error {
	_, err := o.inventory.Change(ctx, id, func(m *inventory.Machine) ([]inventory.Event, error) {
		switch {
		case m.Enrolment.Approved.Hash != keyHash:
			return nil, ErrReplaced
		case m.Cluster == "": // it was let go meanwhile
			return nil, nil
		case !m.Enrolment.Acknowledged.IsZero():
			return nil, nil
		}
		m.Enrolment.Acknowledged, m.Enrolment.Released = o.now(), false
		m.Enrolment.Forced, m.Enrolment.Wipe = false, ""
		return []inventory.Event{{Name: "configured", Detail: m.Hostname, At: o.now()}}, nil
	})
	return err
}
