// Package assign gives machines their place: it keeps the cluster documents,
// claims the machines they name, makes each cluster's keys and renders a
// machine's config from them. A machine gets its first config once for each
// approved key, and changed ones in its turn; cluster CA keys reach
// control-plane machines only.
//
// Three decisions are pure, and their tables are their tests: who starts etcd
// (Etcd.next), whose turn a change is (due), and whether a change of the
// document leaves etcd its quorum (keepsQuorum).
//
// It does not listen: bootsvc/api calls it for people and for machines.
package assign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/bootsvc/authority"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// Why a cluster is not made, or a config not given.
var (
	ErrExists    = errors.New("a different cluster of that name exists")
	ErrClaimed   = errors.New("the machine belongs to another cluster")
	ErrDocument  = errors.New("bad cluster document")
	ErrReplaced  = errors.New("this key does not speak for the machine: enrol again")
	ErrDelivered = errors.New("the config was delivered and acknowledged: restart the machine to get it again")
	ErrWhich     = errors.New("more than one cluster")
)

// Office is where clusters are made and configs are handed out.
type Office struct {
	store     *store.Store
	inventory *inventory.Inventory
	clusters  store.Table[record]
	keys      store.Table[Keys]
	now       func() time.Time

	// CA signs the machines' own certificates.
	CA *authority.Keeper
	// People are who uses the boot service.
	People *authority.People

	// Image is what machines that have a disk are told to install. Set it before use.
	Image machine.Image
}

// record is a cluster as it is kept. It is encrypted at rest: its document may
// hold the key of someone else's etcd, its grant is one.
type record struct {
	Name     string    `json:"name"`
	Document string    `json:"document"` // YAML, with its defaults
	Created  time.Time `json:"created"`
	Revision int       `json:"revision"` // counts the changes of the document
	Etcd     Etcd      `json:"etcd,omitzero"`
}

// Cluster is a cluster and its machines, in the document's order.
type Cluster struct {
	Document *cluster.Cluster
	YAML     []byte // the document for people's eyes: its secrets are masked
	Endpoint string // empty until the first control plane's address is known
	Machines []inventory.Machine
	Etcd     Etcd
	Revision int
	// Current are the machines, by ID, whose units run with the config that they
	// should have. Only Show fills it in.
	Current map[string]bool

	machineCA string // the CAs that sign machines' certificates, PEM
}

// New returns the office of a store. ca signs the machines' own certificates.
func New(s *store.Store, v *inventory.Inventory, ca *authority.Keeper, now func() time.Time) *Office {
	return &Office{
		store: s, inventory: v, CA: ca, People: authority.NewPeople(s), now: now,
		clusters: store.SealedTable[record](s, "clusters"),
		keys:     store.SealedTable[Keys](s, "cluster-keys"),
	}
}

// Create stores a cluster and claims its machines, all or nothing. The same
// document again changes nothing. Machines that were never seen may be named:
// they are claimed as soon as they appear.
func (o *Office) Create(ctx context.Context, document []byte) (Cluster, error) {
	doc, err := cluster.Parse(document, "")
	if err != nil {
		return Cluster{}, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if doc.Masked() {
		return Cluster{}, fmt.Errorf("%w: etcd.external.key is masked: give the key itself", ErrDocument)
	}
	text, err := cluster.Marshal(doc)
	if err != nil {
		return Cluster{}, err
	}
	keys, err := NewKeys(doc.Name, o.now())
	if err != nil {
		return Cluster{}, err
	}
	err = o.store.Atomically(ctx, func(tx *store.Tx) error {
		old, err := o.clusters.Load(tx, doc.Name)
		switch {
		case err == nil && old.Document == string(text):
			return nil
		case err == nil:
			return fmt.Errorf("create cluster %s: %w; slipway cluster update changes it", doc.Name, ErrExists)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if err := o.claim(tx, doc, doc.Machines); err != nil {
			return err
		}
		return errors.Join(
			o.keys.Save(tx, doc.Name, keys),
			o.clusters.Save(tx, doc.Name, record{Name: doc.Name, Document: string(text), Created: o.now(), Revision: 1}))
	})
	if err != nil {
		return Cluster{}, err
	}
	return o.Get(ctx, doc.Name)
}

// claim gives machines their places in the cluster.
func (o *Office) claim(tx *store.Tx, doc *cluster.Cluster, places []cluster.Machine) error {
	var errs []error
	for _, place := range places {
		errs = append(errs, o.inventory.ChangeIn(tx, place.ID, func(m *inventory.Machine) ([]inventory.Event, error) {
			if m.Cluster != "" && m.Cluster != doc.Name {
				return nil, fmt.Errorf("claim machine %s: %w, %s", place.ID, ErrClaimed, m.Cluster)
			}
			m.Cluster, m.Hostname, m.Role = doc.Name, place.Hostname, place.Role
			switch m.Phase {
			case "":
				m.WaitingFor = "its first packet: power it on, with network boot first"
				return nil, nil
			case enroll.Approved:
				*m = m.Enter(enroll.Assigned)
			}
			return []inventory.Event{{Name: "assigned", Detail: "to " + doc.Name + " as " + place.Hostname, At: o.now()}}, nil
		}))
	}
	return errors.Join(errs...)
}

// Get returns a cluster; the empty name is the only one there is. An unknown
// one is store.ErrNotFound.
func (o *Office) Get(ctx context.Context, name string) (Cluster, error) {
	name, err := o.resolve(ctx, name)
	if err != nil {
		return Cluster{}, err
	}
	kept, err := o.clusters.Get(ctx, name)
	if err != nil {
		return Cluster{}, err
	}
	ca, err := o.CA.Table().Get(ctx, authority.ID)
	if err != nil {
		return Cluster{}, err
	}
	c, err := kept.cluster()
	if err != nil {
		return Cluster{}, err
	}
	c.machineCA = string(ca.Trusted())
	for _, place := range c.Document.Machines {
		m, err := o.inventory.Get(ctx, place.ID)
		if err != nil {
			return Cluster{}, err
		}
		c.Machines = append(c.Machines, m)
	}
	c.Endpoint = endpoint(c.Document, c.controlPlanes())
	return c, nil
}

// Show is Get for people: it says whose config is current, and of machines that
// wait for what only people can mend, it says what.
func (o *Office) Show(ctx context.Context, name string) (Cluster, error) {
	c, err := o.Get(ctx, name)
	if err != nil {
		return Cluster{}, err
	}
	keys, err := o.keys.Get(ctx, c.Document.Name)
	if err != nil {
		return Cluster{}, err
	}
	c.Current = map[string]bool{}
	members := c.members()
	trouble, _ := c.Etcd.trouble(members)
	for i, m := range c.Machines {
		if m.Applied != "" {
			wanted, err := c.render(m, keys)
			if err != nil {
				return Cluster{}, err
			}
			c.Current[m.ID] = wanted.digest == m.Applied
		}
		if trouble != "" && slices.ContainsFunc(members, func(member inventory.Machine) bool { return member.ID == m.ID }) {
			c.Machines[i].WaitingFor = trouble
		}
	}
	return c, nil
}

// load is Get as a part of a transaction. It reads only the machines that run
// the control plane or etcd: a transaction can guard 128 documents at most.
func (o *Office) load(tx *store.Tx, name string) (Cluster, record, error) {
	kept, err := o.clusters.Load(tx, name)
	if err != nil {
		return Cluster{}, record{}, err
	}
	ca, err := o.CA.Table().Load(tx, authority.ID)
	if err != nil {
		return Cluster{}, record{}, err
	}
	c, err := kept.cluster()
	if err != nil {
		return Cluster{}, record{}, err
	}
	c.machineCA = string(ca.Trusted())
	for _, place := range c.Document.Machines {
		if place.Role == machine.Worker {
			continue
		}
		m, err := o.inventory.LoadIn(tx, place.ID)
		if err != nil {
			return Cluster{}, record{}, err
		}
		c.Machines = append(c.Machines, m)
	}
	c.Endpoint = endpoint(c.Document, c.controlPlanes())
	return c, kept, nil
}

// cluster reads the record's document.
func (r record) cluster() (Cluster, error) {
	doc, err := cluster.Parse([]byte(r.Document), r.Name)
	if err != nil {
		return Cluster{}, fmt.Errorf("read cluster %s: %w", r.Name, err)
	}
	shown, err := cluster.Marshal(doc.Mask())
	return Cluster{Document: doc, YAML: shown, Etcd: r.Etcd, Revision: r.Revision}, err
}

// resolve finds the cluster that is meant.
func (o *Office) resolve(ctx context.Context, name string) (string, error) {
	if name != "" {
		return name, nil
	}
	all, err := o.clusters.List(ctx)
	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return "", fmt.Errorf("no cluster yet: %w", store.ErrNotFound)
	case len(all) > 1:
		names := make([]string, len(all))
		for i, one := range all {
			names[i] = one.Name
		}
		slices.Sort(names)
		return "", fmt.Errorf("%w: name one of %s", ErrWhich, strings.Join(names, ", "))
	}
	return all[0].Name, nil
}
