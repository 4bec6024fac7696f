package assign

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// ErrGrant says that a machine has no leave to start the cluster's etcd.
var ErrGrant = errors.New("this machine has no leave to start the cluster's etcd")

// Etcd is what has to be known of a cluster's etcd so that it is started
// exactly once, and never anew while some machine holds its data.
type Etcd struct {
	// Generation counts the times that etcd was started anew; 0 before the first.
	Generation int   `json:"generation,omitempty"`
	Grant      Grant `json:"grant,omitzero"`
	// Voters are the machines, by ID, that were voters of this generation, each
	// with the hash of the key that it had then: with another key, it has lost
	// its data.
	Voters map[string]string `json:"voters,omitempty"`
	// Opened is set once a control plane was ready: the cluster is there.
	Opened bool `json:"opened,omitempty"`
	// Grown is set once another machine than the granted one was a voter.
	Grown bool `json:"grown,omitempty"`
}

// Grant is one machine's leave to start one generation. It is stored before any
// config with its token is made, and holds for one key of the machine only.
type Grant struct {
	Machine string `json:"machine,omitempty"`
	// KeyHash is the key's; empty until the machine has enrolled.
	KeyHash  string `json:"keyHash,omitempty"`
	Token    string `json:"token,omitempty"`    // 32 random bytes, base64
	Snapshot string `json:"snapshot,omitempty"` // SHA-256, hex, of the snapshot to start from
	Recover  bool   `json:"recover,omitempty"`  // to start from the machine's own data
	Redeemed bool   `json:"redeemed,omitempty"` // the machine may have begun
	Done     bool   `json:"done,omitempty"`     // etcd has started
}

// Start is the next generation: grant names the machine, its key and where the
// data comes from. Nobody has been a voter of it yet.
func (e Etcd) Start(grant Grant) Etcd {
	token := make([]byte, 32)
	rand.Read(token)
	grant.Token, grant.Redeemed, grant.Done = base64.StdEncoding.EncodeToString(token), false, false
	return Etcd{Generation: e.Generation + 1, Grant: grant}
}

// next is etcd's state once the machines that are to be its members are as
// they are now. members are in the document's order; of an external etcd, which
// counts as started, there are none. But for the token it is pure.
//
// The grant moves to another key only if nobody can hold data of this
// generation but the granted machine, and that has lost its own: it has another
// key, so it was started again from RAM, or was reset. A lone control plane in
// RAM thus begins anew with every start: from the snapshot, if it was restored
// from one. That is old, but an empty cluster would be worse.
func (e Etcd) next(members []inventory.Machine) Etcd {
	if len(members) == 0 {
		e.Generation = max(e.Generation, 1)
		return e
	}
	at := slices.IndexFunc(members, func(m inventory.Machine) bool { return m.ID == e.Grant.Machine })
	switch {
	case e.Generation == 0:
		return e.Start(Grant{Machine: members[0].ID, KeyHash: members[0].Enrolment.Approved.Hash})
	case at >= 0 && e.Grant.KeyHash == "":
		e.Grant.KeyHash = members[at].Enrolment.Approved.Hash
		return e
	case at >= 0 && e.Grant.KeyHash == members[at].Enrolment.Approved.Hash:
		return e
	case e.Grown, e.Grant.Recover:
		return e // others hold the data, or nobody does: see trouble
	case at < 0 && e.Voters[e.Grant.Machine] != "":
		return e // the data left the cluster with the machine
	}
	m := members[max(at, 0)]
	return e.Start(Grant{Machine: m.ID, KeyHash: m.Enrolment.Approved.Hash, Snapshot: e.Grant.Snapshot})
}

// holds says whether a machine may start this generation.
func (g Grant) holds(m inventory.Machine) bool {
	return g.Machine == m.ID && g.KeyHash != "" && g.KeyHash == m.Enrolment.Approved.Hash
}

// trouble says, in words for people, what only they can mend: etcd has lost its
// quorum, or, gone, all of its data. Empty: nothing of the kind is known.
func (e Etcd) trouble(members []inventory.Machine) (words string, gone bool) {
	if e.Generation == 0 || len(members) == 0 {
		return "", false
	}
	holders := 0
	for _, m := range members {
		intact := m.Enrolment.Approved.Hash != "" && e.Voters[m.ID] == m.Enrolment.Approved.Hash
		switch {
		case intact && m.Etcd.Healthy && m.Etcd.Generation == e.Generation, e.Grant.holds(m) && len(e.Voters) == 0:
			return "", false
		case intact:
			holders++
		}
	}
	switch {
	case e.Grant.KeyHash == "":
		return "", false
	case holders == 0:
		return "etcd's data: no machine has it any more; slipway cluster restore --snapshot brings back a snapshot's, slipway cluster delete gives the cluster up", true
	case holders < len(e.Voters)/2+1:
		return fmt.Sprintf("etcd's quorum: of %d members only %d still have their data; slipway cluster recover goes on with what they have", len(e.Voters), holders), false
	}
	return "", false
}

// voted notes that a machine said it is a voter.
func (e Etcd) voted(m inventory.Machine) Etcd {
	if m.Etcd.Generation != e.Generation || !m.Etcd.Voter || e.Voters[m.ID] == m.Enrolment.Approved.Hash {
		return e
	}
	voters := map[string]string{m.ID: m.Enrolment.Approved.Hash}
	for id, hash := range e.Voters {
		if id != m.ID {
			voters[id] = hash
		}
	}
	e.Voters = voters
	e.Grown = e.Grown || m.ID != e.Grant.Machine
	return e
}

// opened notes that a control plane said it is ready.
func (e Etcd) opened(m inventory.Machine) Etcd {
	e.Opened = e.Opened || m.Role == machine.ControlPlane && m.Phase == enroll.Ready
	return e
}

// Redeem takes a grant's token: the machine begins to start etcd, or is done.
// It may be repeated with the same key until it is done, and saying done may be
// repeated then. Anything else is ErrGrant.
func (o *Office) Redeem(ctx context.Context, id, keyHash, token string, done bool) error {
	return o.store.Atomically(ctx, func(tx *store.Tx) error {
		m, err := o.inventory.LoadIn(tx, id)
		switch {
		case err != nil:
			return err
		case m.Enrolment.Approved.Hash != keyHash:
			return ErrReplaced
		case m.Cluster == "":
			return ErrGrant
		}
		kept, err := o.clusters.Load(tx, m.Cluster)
		if err != nil {
			return err
		}
		if err := kept.Etcd.Grant.redeem(m, token, done); err != nil {
			return err
		}
		return o.clusters.Save(tx, m.Cluster, kept)
	})
}

// redeem is pure: what a token does to the grant.
func (g *Grant) redeem(m inventory.Machine, token string, done bool) error {
	switch {
	case !g.holds(m), subtle.ConstantTimeCompare([]byte(token), []byte(g.Token)) != 1:
		return ErrGrant
	case g.Done && !done:
		return fmt.Errorf("%w: it has done so already", ErrGrant)
	case done && !g.Redeemed:
		return fmt.Errorf("%w: it never began to", ErrGrant)
	}
	g.Redeemed, g.Done = true, g.Done || done
	return nil
}
