package assign

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/nodeinit/api/nodev1"
)

// Why there is no recovery.
var (
	ErrHealthy    = errors.New("there is nothing to recover")
	ErrNoSurvivor = errors.New("no machine that answers holds etcd's data")
	ErrPlan       = errors.New("the recovery that was agreed to is no longer what would happen")
)

// AskStatus asks the node at an address how its member of etcd is. It blocks
// for a few seconds at most.
type AskStatus func(ctx context.Context, node netip.Addr) (*nodev1.EtcdStatusResponse, error)

// Survivor is a machine that answers and holds etcd's data.
type Survivor struct {
	Machine inventory.Machine
	Status  *nodev1.EtcdStatusResponse
}

// Recovery is how quorum would be rebuilt: the first survivor goes on alone with
// what it holds, and the others join it anew.
type Recovery struct {
	Cluster    string
	Generation int        // that etcd is at; the recovery's is the next
	Survivors  []Survivor // freshest first, at least one
	Silent     []string   // the others, and why, in words
	Loss       string     // in words: what would be lost
}

// PlanRecovery asks every machine that is to run a member what it holds. While
// one of them has a leader it is ErrHealthy. It changes nothing.
func (o *Office) PlanRecovery(ctx context.Context, name string, ask AskStatus) (Recovery, error) {
	c, err := o.Get(ctx, name)
	if err != nil {
		return Recovery{}, err
	}
	members, err := c.Members()
	if err != nil {
		return Recovery{}, err
	}
	return planRecovery(c, askAll(ctx, members, ask), o.now())
}

// heard is what a machine answered, or why it did not.
type heard struct {
	machine inventory.Machine
	status  *nodev1.EtcdStatusResponse
	err     error
}

func askAll(ctx context.Context, members []inventory.Machine, ask AskStatus) []heard {
	all := make([]heard, len(members))
	var group sync.WaitGroup
	for i, m := range members {
		all[i] = heard{machine: m, err: errors.New("it has no address yet")}
		if m.Address.IsValid() {
			group.Go(func() { all[i].status, all[i].err = ask(ctx, m.Address) })
		}
	}
	group.Wait()
	return all
}

// planRecovery is pure.
func planRecovery(c Cluster, all []heard, now time.Time) (Recovery, error) {
	plan := Recovery{Cluster: c.Document.Name, Generation: c.Etcd.Generation}
	for _, h := range all {
		switch {
		case h.err != nil:
			plan.Silent = append(plan.Silent, h.machine.Hostname)
		case h.status.GetRunning() && !h.status.GetLearner() && h.status.GetLeaderId() != "":
			return Recovery{}, fmt.Errorf("cluster %s: %w: %s has a leader, so etcd's quorum answers; see slipway etcd members", plan.Cluster, ErrHealthy, h.machine.Hostname)
		case h.status.GetMemberId() == "":
			plan.Silent = append(plan.Silent, h.machine.Hostname+" (it answers, but holds no data)")
		default:
			plan.Survivors = append(plan.Survivors, Survivor{h.machine, h.status})
		}
	}
	slices.Sort(plan.Silent)
	if len(plan.Survivors) == 0 {
		return Recovery{}, fmt.Errorf("cluster %s: %w: %s; power one of them on, or start from a snapshot: slipway cluster restore %s --snapshot ID",
			plan.Cluster, ErrNoSurvivor, strings.Join(plan.Silent, ", "), plan.Cluster)
	}
	slices.SortStableFunc(plan.Survivors, fresher)
	plan.Loss = plan.loss(now)
	return plan, nil
}

// fresher orders survivors. The index of a member's status is of the last entry
// that it knows to be committed (etcd, v3rpc/maintenance.go), and that is what
// it can go on from: etcd drops the others when it makes a new cluster of one.
// Of two members of a cluster, the one with the higher such index holds all
// that the other one holds, whatever their terms. Of two that hold the same, the
// one that had a leader last says for less time that writes may be lost.
func fresher(a, b Survivor) int {
	return cmp.Or(
		cmp.Compare(b.rank(), a.rank()),
		cmp.Compare(b.Status.GetGeneration(), a.Status.GetGeneration()),
		cmp.Compare(b.Status.GetRaftIndex(), a.Status.GetRaftIndex()),
		cmp.Compare(b.Status.GetRaftTerm(), a.Status.GetRaftTerm()),
		cmp.Compare(b.Status.GetRevision(), a.Status.GetRevision()),
		b.Status.GetLastLeader().AsTime().Compare(a.Status.GetLastLeader().AsTime()))
}

// rank puts those first whose etcd runs, so that what it holds is known, and
// voters before learners.
func (s Survivor) rank() int {
	switch {
	case !s.Status.GetRunning():
		return 0
	case s.Status.GetLearner():
		return 1
	}
	return 2
}

// loss says what a recovery costs.
func (r Recovery) loss(now time.Time) string {
	first := r.Survivors[0]
	text := fmt.Sprintf("%s goes on at revision %d", first.Machine.Hostname, first.Status.GetRevision())
	if first.rank() == 0 {
		text = fmt.Sprintf("%s goes on with the data on its disk; its etcd does not run, so nobody knows how fresh that is", first.Machine.Hostname)
	}
	since := "it is not known when it last had a leader, so writes of any age may be lost"
	if last := first.Status.GetLastLeader(); last.IsValid() && last.GetSeconds() > 0 {
		since = fmt.Sprintf("it last had a leader at %s, %v ago: writes that were acknowledged after that may be lost",
			last.AsTime().UTC().Format(time.DateTime+" UTC"), now.Sub(last.AsTime()).Round(time.Second))
	}
	if len(r.Silent) == 0 {
		return text + "; " + since + "."
	}
	return fmt.Sprintf("%s; %s. Not heard of: %s. If they run and reach each other, they are still the cluster: "+
		"power them off, or bring them back instead of this. Whatever only they hold is lost.", text, since, strings.Join(r.Silent, ", "))
}

// Digest names what would happen: the same as long as a person's yes holds.
func (r Recovery) Digest() []byte {
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %d\n", r.Cluster, r.Generation)
	for _, s := range r.Survivors {
		fmt.Fprintf(hash, "%s %s %d %d\n", s.Machine.ID, s.Machine.Enrolment.Approved.Hash, s.Status.GetRaftIndex(), s.Status.GetRevision())
	}
	fmt.Fprintf(hash, "%q\n", r.Silent)
	return hash.Sum(nil)
}

// Recover rebuilds quorum from the first survivor: a new generation of etcd,
// which that machine alone is to start, from its own data. If the plan is not
// the one with this digest any more, it is ErrPlan and nothing is changed.
func (o *Office) Recover(ctx context.Context, name string, digest []byte, ask AskStatus) (Cluster, error) {
	plan, err := o.PlanRecovery(ctx, name, ask)
	if err != nil {
		return Cluster{}, err
	}
	changed := fmt.Errorf("cluster %s: %w; nothing was changed: look again with slipway cluster recover", plan.Cluster, ErrPlan)
	if !bytes.Equal(plan.Digest(), digest) {
		return Cluster{}, changed
	}
	first := plan.Survivors[0]
	err = o.store.Atomically(ctx, func(tx *store.Tx) error {
		kept, err := o.clusters.Load(tx, plan.Cluster)
		if err != nil {
			return err
		}
		if kept.Etcd.Generation != plan.Generation {
			return changed
		}
		return o.restart(tx, kept, first.Machine, Grant{Recover: true}, fmt.Sprintf("from its own data, revision %d", first.Status.GetRevision()))
	})
	if err != nil {
		return Cluster{}, err
	}
	return o.Show(ctx, plan.Cluster)
}

// restart has m start the next generation of a cluster's etcd from older data.
func (o *Office) restart(tx *store.Tx, kept record, m inventory.Machine, grant Grant, from string) error {
	grant.Machine, grant.KeyHash = m.ID, m.Enrolment.Approved.Hash
	kept.Etcd = kept.Etcd.Start(grant)
	return o.begin(tx, kept, from)
}

// begin stores a generation of a cluster's etcd that starts from older data,
// and lets the API servers read Secrets of the time that its data is of.
func (o *Office) begin(tx *store.Tx, kept record, from string) error {
	keys, err := o.keys.Load(tx, kept.Name)
	if err != nil {
		return err
	}
	return errors.Join(
		o.clusters.Save(tx, kept.Name, kept),
		o.keys.Save(tx, kept.Name, keys.Readmit(o.now())),
		o.inventory.ChangeIn(tx, kept.Etcd.Grant.Machine, func(*inventory.Machine) ([]inventory.Event, error) {
			detail := fmt.Sprintf("generation %d of etcd, %s", kept.Etcd.Generation, from)
			return []inventory.Event{{Name: "restore", Detail: detail, At: o.now()}}, nil
		}))
}
