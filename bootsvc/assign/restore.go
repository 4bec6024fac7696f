package assign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/cluster"
)

// ErrNoMembers says that there is no etcd that is ours to look after.
var ErrNoMembers = errors.New("the cluster's etcd is external: whoever runs it takes its snapshots and restores them")

// ErrOther says that a snapshot is of another cluster.
var ErrOther = errors.New("the snapshot is of another cluster")

// Source is the snapshot that a cluster is to be restored from.
type Source struct {
	Snapshot string // its ID, for people
	SHA256   string // hex, of its file
	Name, ID string // which cluster it says it is of; empty: it does not say
	// Keep has it kept for good, for the machine that fetches it later. It is
	// called once nothing speaks against the restore, and may be called again.
	Keep func() error
}

// Restore starts the next generation of a cluster's etcd from a snapshot. A
// document, if one is given, replaces the cluster's at once: as with Update, but
// that quorum is not asked for, since what the members hold is given up. A
// snapshot of another cluster is ErrOther, unless forced. The same call again
// starts yet another generation.
func (o *Office) Restore(ctx context.Context, name string, from Source, document []byte, force bool) (Cluster, error) {
	name, err := o.resolve(ctx, name)
	if err != nil {
		return Cluster{}, err
	}
	doc, err := parseFor(name, document)
	if err != nil {
		return Cluster{}, err
	}
	err = o.store.Atomically(ctx, func(tx *store.Tx) error {
		if err := o.accept(tx, name, from, force); err != nil {
			return err
		}
		if doc != nil {
			if err := o.updateIn(tx, doc, Leave{Force: true}); err != nil {
				return err
			}
		}
		c, kept, err := o.load(tx, name)
		if err != nil {
			return err
		}
		members, err := c.Members()
		if err != nil {
			return err
		}
		if err := from.keep(); err != nil {
			return err
		}
		return o.restart(tx, kept, starter(members, o.now()), Grant{Snapshot: from.SHA256}, "from snapshot "+from.Snapshot)
	})
	if err != nil {
		return Cluster{}, fmt.Errorf("restore cluster %s: %w; nothing was changed", name, err)
	}
	return o.Show(ctx, name)
}

func (s Source) keep() error {
	if s.Keep == nil {
		return nil
	}
	return s.Keep()
}

// parseFor reads a cluster's new document; nil if there is none.
func parseFor(name string, document []byte) (*cluster.Cluster, error) {
	if len(document) == 0 {
		return nil, nil
	}
	doc, err := cluster.Parse(document, "")
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	case doc.Name != name:
		return nil, fmt.Errorf("%w: its name is %s, and the cluster's is %s", ErrDocument, doc.Name, name)
	}
	return doc, nil
}

// accept makes sure that a snapshot is of the cluster.
func (o *Office) accept(tx *store.Tx, name string, from Source, force bool) error {
	keys, err := o.keys.Load(tx, name)
	if err != nil {
		return err
	}
	if force {
		return nil
	}
	return keys.made(name, from)
}

// made says that a snapshot is not of the cluster with these keys, or nil.
func (k Keys) made(name string, from Source) error {
	ids, err := k.IDs()
	switch {
	case err != nil || slices.Contains(ids, from.ID):
		return err
	case from.ID == "":
		return fmt.Errorf("%w: %s does not say which cluster it is of; nothing was changed. slipway cluster snapshots lists those that do. --force takes it, but its Secrets cannot be read unless this cluster's key encrypted them", ErrOther, from.Snapshot)
	}
	return fmt.Errorf("%w: %s is of %.63q (%.12s), and this is %q (%.12s); nothing was changed. slipway cluster snapshots %s lists its own. --force takes it, but its Secrets cannot be read, since another key encrypted them",
		ErrOther, from.Snapshot, from.Name, from.ID, name, ids[0], name)
}

// starter is pure: the machine that is to start etcd from a snapshot. It is the
// first that is heard of, or else the first that has enrolled, or else the first.
func starter(members []inventory.Machine, now time.Time) inventory.Machine {
	for _, fits := range []func(inventory.Machine) bool{
		func(m inventory.Machine) bool { return addressed(m) && !m.Silent(now) },
		addressed,
	} {
		if at := slices.IndexFunc(members, fits); at >= 0 {
			return members[at]
		}
	}
	return members[0]
}

// Members are the machines that are to run a member of the cluster's etcd, in
// the document's order. An external etcd is ErrNoMembers.
func (c Cluster) Members() ([]inventory.Machine, error) {
	members := c.members()
	if len(members) == 0 {
		return nil, fmt.Errorf("cluster %s: %w", c.Document.Name, ErrNoMembers)
	}
	return members, nil
}

// All returns all clusters.
func (o *Office) All(ctx context.Context) ([]Cluster, error) {
	records, err := o.clusters.List(ctx)
	if err != nil {
		return nil, err
	}
	var all []Cluster
	for _, one := range records {
		c, err := o.Get(ctx, one.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// Granted returns the SHA-256, hex, of the snapshot that the machine is to start
// its cluster's etcd from. A machine that is not to is ErrGrant.
func (o *Office) Granted(ctx context.Context, id, keyHash string) (string, error) {
	m, err := o.inventory.Get(ctx, id)
	switch {
	case err != nil:
		return "", err
	case m.Enrolment.Approved.Hash != keyHash:
		return "", ErrReplaced
	case m.Cluster == "":
		return "", ErrGrant
	}
	kept, err := o.clusters.Get(ctx, m.Cluster)
	switch grant := kept.Etcd.Grant; {
	case err != nil:
		return "", err
	case !grant.holds(m), grant.Snapshot == "", grant.Done:
		return "", ErrGrant
	default:
		return grant.Snapshot, nil
	}
}
