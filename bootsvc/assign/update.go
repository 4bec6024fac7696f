package assign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/configs/wipe"
)

// Why a cluster is not changed.
var (
	ErrFixed  = errors.New("this cannot be changed once the cluster is made")
	ErrQuorum = errors.New("etcd would lose its quorum")
)

// Leave is how machines leave their cluster.
type Leave struct {
	Force bool     // though etcd loses its quorum by it
	Wipe  wipe.How // of the disks of installed ones; empty: metadata
}

// Update replaces a cluster's document. Machines that it names anew are claimed,
// those that it names no more are let go: they reset themselves when they hear
// of it, as leave says. A change that leaves etcd without a quorum is ErrQuorum,
// unless forced. The same document again changes nothing.
func (o *Office) Update(ctx context.Context, document []byte, leave Leave) (Cluster, error) {
	doc, err := cluster.Parse(document, "")
	if err != nil {
		return Cluster{}, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	err = o.store.Atomically(ctx, func(tx *store.Tx) error { return o.updateIn(tx, doc, leave) })
	if err != nil {
		return Cluster{}, err
	}
	return o.Show(ctx, doc.Name)
}

func (o *Office) updateIn(tx *store.Tx, doc *cluster.Cluster, leave Leave) error {
	old, kept, err := o.load(tx, doc.Name)
	if err != nil {
		return err
	}
	doc.Unmask(old.Document)
	if doc.Masked() {
		return fmt.Errorf("%w: etcd.external.key is masked: give the key itself", ErrDocument)
	}
	if err := fixed(old.Document, doc); err != nil {
		return err
	}
	if err := old.keepsQuorum(doc, o.now()); err != nil && !leave.Force {
		return err
	}
	text, err := cluster.Marshal(doc)
	if err != nil || kept.Document == string(text) {
		return err
	}
	kept.Document, kept.Revision = string(text), kept.Revision+1
	gone := missing(old.Document.Machines, doc.Machines)
	kept.Etcd = kept.Etcd.without(gone)
	return errors.Join(
		o.claim(tx, doc, missing(doc.Machines, old.Document.Machines)),
		o.release(tx, doc.Name, gone, leave),
		o.clusters.Save(tx, doc.Name, kept))
}

// Delete gives a cluster up: it lets go of all its machines, and forgets its
// keys. An unknown cluster is store.ErrNotFound.
func (o *Office) Delete(ctx context.Context, name string, how wipe.How) error {
	return o.store.Atomically(ctx, func(tx *store.Tx) error {
		kept, err := o.clusters.Load(tx, name)
		if err != nil {
			return fmt.Errorf("delete cluster: %w", err)
		}
		c, err := kept.cluster()
		if err != nil {
			return err
		}
		o.clusters.Drop(tx, name)
		o.keys.Drop(tx, name)
		return o.release(tx, name, c.Document.Machines, Leave{Force: true, Wipe: how})
	})
}

// missing are the places of machines that the other list does not have.
func missing(places, in []cluster.Machine) (only []cluster.Machine) {
	for _, p := range places {
		if _, found := placeOf(in, p.ID); !found {
			only = append(only, p)
		}
	}
	return only
}

func placeOf(places []cluster.Machine, id string) (cluster.Machine, bool) {
	at := slices.IndexFunc(places, func(p cluster.Machine) bool { return p.ID == id })
	if at < 0 {
		return cluster.Machine{}, false
	}
	return places[at], true
}

// release lets machines go. One that has a config hears of it when it asks for
// a newer one; until it has come back with a new key, it is nobody's.
func (o *Office) release(tx *store.Tx, name string, places []cluster.Machine, leave Leave) error {
	var errs []error
	for _, place := range places {
		errs = append(errs, o.inventory.ChangeIn(tx, place.ID, func(m *inventory.Machine) ([]inventory.Event, error) {
			*m = released(*m, leave)
			if m.Phase == "" {
				return nil, nil
			}
			return []inventory.Event{{Name: "released", Detail: "from " + name, At: o.now()}}, nil
		}))
	}
	return errors.Join(errs...)
}

func released(m inventory.Machine, leave Leave) inventory.Machine {
	had := m.Given.Digest != ""
	m.Cluster, m.Hostname, m.Role = "", "", ""
	m.Given, m.Applied, m.Etcd = inventory.Given{}, "", inventory.EtcdState{}
	m.Enrolment.Acknowledged, m.Enrolment.Released = time.Time{}, had
	m.Enrolment.Forced, m.Enrolment.Wipe = false, ""
	if had {
		m.Enrolment.Forced, m.Enrolment.Wipe = leave.Force, leave.Wipe
	}
	switch {
	case had:
		m = m.Enter(enroll.Booting)
		m.WaitingFor = "its reset, which it begins by itself; switch it off and on if it does not"
	case m.Phase == enroll.Assigned:
		m = m.Enter(enroll.Approved)
	}
	return m
}

// without forgets voters that leave the cluster.
func (e Etcd) without(gone []cluster.Machine) Etcd {
	voters := map[string]string{}
	for id, hash := range e.Voters {
		if _, leaves := placeOf(gone, id); !leaves {
			voters[id] = hash
		}
	}
	// Its data leaves with the granted machine: it must not be started anew.
	if _, leaves := placeOf(gone, e.Grant.Machine); leaves && e.Voters[e.Grant.Machine] != "" {
		e.Grown = true
	}
	e.Voters = voters
	return e
}

// fixed says what of a document may not change: Kubernetes and etcd keep it in
// their data, and a node keeps its name and its role.
func fixed(old, doc *cluster.Cluster) error {
	for _, field := range []struct {
		path     string
		old, now any
	}{
		{"network.podSubnet", old.Network.PodSubnet, doc.Network.PodSubnet},
		{"network.serviceSubnet", old.Network.ServiceSubnet, doc.Network.ServiceSubnet},
		{"network.dnsDomain", old.Network.DNSDomain, doc.Network.DNSDomain},
		{"where etcd is kept", topology(old), topology(doc)},
	} {
		if field.old != field.now {
			return fmt.Errorf("%w: %s is %v, and would be %v; make a new cluster", ErrFixed, field.path, field.old, field.now)
		}
	}
	for _, place := range doc.Machines {
		was, found := placeOf(old.Machines, place.ID)
		if found && (was.Hostname != place.Hostname || was.Role != place.Role) {
			return fmt.Errorf("%w: machine %s is %s with the role %s, and would be %s with the role %s; take it out first, then let it join anew",
				ErrFixed, place.ID, was.Hostname, was.Role, place.Hostname, place.Role)
		}
	}
	return nil
}

// topology is where the cluster's etcd is, in words.
func topology(doc *cluster.Cluster) string {
	switch {
	case doc.Etcd.External != nil:
		return "external"
	case doc.EtcdMachines()[0].Role == machine.EtcdOnly:
		return "on machines of its own"
	}
	return "on the control planes"
}

// keepsQuorum says why etcd would lose its quorum if only the machines of a new
// document stayed. Who stays must be enough healthy voters for the present
// voters' quorum. One machine more may go when all voters are healthy: it takes
// itself out of etcd before it resets.
func (c Cluster) keepsQuorum(doc *cluster.Cluster, now time.Time) error {
	var stay, ill, leave []string
	well := 0
	for _, m := range c.members() {
		_, stays := placeOf(doc.Machines, m.ID)
		voted := c.Etcd.Voters[m.ID] != ""
		healthy := voted && c.voter(m) && !m.Silent(now)
		switch {
		case !voted:
		case !stays:
			leave = append(leave, m.Hostname)
		case healthy:
			stay = append(stay, m.Hostname)
		}
		switch {
		case healthy:
			well++
		case voted:
			ill = append(ill, m.Hostname)
		}
	}
	quorum := len(c.Etcd.Voters)/2 + 1
	if len(leave) == 0 || len(stay) >= quorum || len(stay) > 0 && len(leave) == 1 && len(ill) == 0 {
		return nil
	}
	hint := "take out one machine at a time, and let another be a voter before the last one goes"
	switch {
	case well < quorum:
		hint = "slipway cluster recover: the quorum is lost already, for " + strings.Join(ill, ", ")
	case len(ill) > 0:
		hint = "first mend or replace what is no healthy voter now: " + strings.Join(ill, ", ")
	}
	return fmt.Errorf("%w: it has %d voters and needs %d; without %s, %d healthy ones are left. Do this instead: %s (see slipway cluster status). --force does it nevertheless",
		ErrQuorum, len(c.Etcd.Voters), quorum, strings.Join(leave, ", "), len(stay), hint)
}
