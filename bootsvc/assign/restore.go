package assign

import (
	"context"
	"errors"
	"fmt"

	"slipway/bootsvc/inventory"
)

// ErrNoMembers says that there is no etcd that is ours to look after.
var ErrNoMembers = errors.New("the cluster's etcd is external: whoever runs it takes its snapshots and restores them")

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
