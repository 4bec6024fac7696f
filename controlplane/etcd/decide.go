package etcd

import (
	"fmt"
	"slices"
	"strings"
)

// Kind says what to do.
type Kind string

// The kinds of an Action.
const (
	Start       Kind = "start"        // run etcd on the data that is there
	Join        Kind = "join"         // run etcd as the member that Add made
	Bootstrap   Kind = "bootstrap"    // make a new cluster of one
	Restore     Kind = "restore"      // make a new cluster of one, from a snapshot
	Recover     Kind = "recover"      // make a new cluster of one, from an earlier generation's data
	Add         Kind = "add"          // have the others add this machine, as a learner
	RemoveStale Kind = "remove-stale" // have the others remove what this machine was before
	Wait        Kind = "wait"         // decide again when the facts have changed
	Refuse      Kind = "refuse"       // nothing helps but a person, or another config
)

// Action is a decision.
type Action struct {
	Kind     Kind
	Member   uint64   // RemoveStale: whom
	Snapshot string   // Restore: its SHA-256, hex
	Members  []Member // Join: all of them, this machine's too
	Aside    bool     // Join, Add: what is in the data directory is moved aside first
	What     string   // Wait: what for. Refuse: why, and what is kept
	Next     string   // Wait, Refuse: what to do
}

// Text is a wait's or refusal's line for people.
func (a Action) Text() string {
	if a.What == "" {
		return string(a.Kind)
	}
	return a.What + "; " + a.Next
}

func wait(next, format string, args ...any) Action {
	return Action{Kind: Wait, What: fmt.Sprintf(format, args...), Next: next}
}

func refuse(next, format string, args ...any) Action {
	return Action{Kind: Refuse, What: fmt.Sprintf(format, args...), Next: next}
}

// What people are told to do.
const (
	nextReset  = "slipway node reset makes the machine a new one"
	nextDisk   = "another disk, or etcd.allowSlowDisk: true in the cluster's document (slipway cluster update -f)"
	nextQuorum = "start the others, or slipway cluster recover"
	nextBackup = "slipway cluster restore from a snapshot, or slipway cluster recover from another member"
)

// Decide says what a machine's member is to do. The same facts give the same
// action, and each action may be repeated after a crash in the middle of it.
//
//   - Who holds its data and is a member starts; who never was one is added.
//   - A cluster is begun by the one machine that was given leave, once, and
//     never while a member of its generation answers.
//   - Data of another cluster or generation, or of one that left, is not touched.
//   - A member is removed only if the others remain a quorum.
func Decide(f Facts) Action {
	switch {
	case f.Clock != "":
		return wait("set the clock: see that the machine reaches the boot service, which sets it, or do it in the machine's firmware", "the clock is wrong: %s; nothing was changed, and the data is kept", f.Clock)
	case !slices.Contains(f.Intended, f.Name):
		return refuse("list the machine under etcd.members, or reset it", "%s is not among the members that the config lists; its data is kept", f.Name)
	case f.Data.State == Left:
		return refuse(nextReset, "this member has left the cluster for good; its data is kept and not started")
	case f.Data.State == Foreign:
		return refuse(nextReset, "the data is another cluster's: %s; it is kept as it is", f.Data.Problem)
	}
	if newer := f.views(func(v View) bool { return v.Generation > f.Generation }); len(newer) > 0 {
		return wait("the boot service gives this machine the new config", "%s is of generation %d, this machine's config of %d", newer[0].From, newer[0].Generation, f.Generation)
	}
	current := f.current()
	for _, v := range current {
		if v.ClusterID != current[0].ClusterID {
			return refuse("stop the one that is wrong", "%s and %s are two clusters of generation %d (%x, %x); nothing was changed", current[0].From, v.From, f.Generation, current[0].ClusterID, v.ClusterID)
		}
	}
	if len(current) > 0 {
		return f.withCluster(best(current))
	}
	return f.alone()
}

// withCluster decides when members of the machine's cluster answer. There is
// nothing to begin then, whoever has leave to.
func (f *Facts) withCluster(v View) Action {
	if f.Data.State != Ours {
		return f.enter(v)
	}
	is := func(m Member) bool { return m.ID == f.Data.MemberID }
	switch {
	case v.ClusterID != f.Data.ClusterID:
		return refuse(nextReset, "the data is of cluster %x, %s is of cluster %x; the data is kept as it is", f.Data.ClusterID, v.From, v.ClusterID)
	case slices.ContainsFunc(v.Members, is):
		return Action{Kind: Start}
	case !v.Quorum:
		return wait(nextQuorum, "%s does not know this member, and has no quorum to ask", v.From)
	}
	return f.enter(v) // it was removed: what it holds is of no use to it
}

// enter decides for a machine that holds no data the cluster knows.
func (f *Facts) enter(v View) Action {
	if !v.Quorum {
		return wait(nextQuorum, "%s answers, but has no quorum%s", v.From, f.kept())
	}
	if f.SlowDisk != "" {
		return refuse(nextDisk, "%s", f.SlowDisk)
	}
	for _, m := range v.Members {
		if m.Name == f.Name || m.PeerURL == f.PeerURL {
			return f.replace(v, m)
		}
	}
	for _, m := range v.Members {
		if m.Learner {
			return wait("etcd takes one learner at a time; remove it with slipway etcd remove if its machine is gone", "the learner %s to be promoted", m)
		}
	}
	return Action{Kind: Add, Aside: f.Data.State != NoData}
}

// replace decides about a member that has this machine's name or address, and
// is not it.
func (f *Facts) replace(v View, m Member) Action {
	switch {
	case m.Healthy && m.Name == f.Name:
		return refuse("rename or switch off one of the two", "a live member at %s has the name %s too%s; nothing was changed", m.PeerURL, f.Name, f.kept())
	case m.Healthy:
		return refuse("give one of the two another address", "the live member %s has this machine's address%s; nothing was changed", m, f.kept())
	case m.Name == "":
		return Action{Kind: Join, Members: v.Members, Aside: f.Data.State != NoData}
	case m.Name != f.Name:
		return wait("the leader removes members that the config does not list; or slipway etcd remove "+m.Name, "the member %s has this machine's address", m)
	case !QuorumWithout(v.Members, m.ID):
		return wait(nextQuorum, "the others are no quorum without %s, which this machine was before%s", m, f.kept())
	}
	return Action{Kind: RemoveStale, Member: m.ID}
}

// alone decides when no member of the machine's generation answers.
func (f *Facts) alone() Action {
	switch f.Data.State {
	case Ours:
		if f.Grant != nil && f.Record == NoRecord {
			return refuse(nextReset, "the data is of this generation, though it was not begun yet: another cluster's of the same name; it is kept as it is")
		}
		return Action{Kind: Start}
	case Unreadable:
		if len(f.Intended) > 1 {
			return wait("start the others: with a quorum of them this machine joins anew; or "+nextBackup, "%s%s", f.silence(), f.kept())
		}
		return refuse(nextBackup, "etcd's data cannot be read%s", f.kept())
	}
	if f.Grant == nil {
		return wait("the machine that begins the cluster, or a quorum of its members", "%s", f.silence())
	}
	return f.begin()
}

// begin decides for the machine that may begin the generation, and holds
// nothing of it yet.
func (f *Facts) begin() Action {
	unknown := f.views(func(v View) bool { return v.Generation == 0 })
	learners := f.views(f.isCurrent)
	switch {
	case f.Record == Done:
		return refuse(nextBackup, "this machine began generation %d and its data is gone; a cluster is not begun twice", f.Generation)
	case len(learners) > 0:
		return wait(nextQuorum, "the learner %s answers, and no voter", learners[0].From)
	case len(unknown) > 0:
		return wait("it says so once it has a leader; if it is another cluster's, stop it", "%s to say which generation it is of", unknown[0].From)
	case f.SlowDisk != "":
		return refuse(nextDisk, "%s", f.SlowDisk)
	case f.Grant.Snapshot != "":
		return Action{Kind: Restore, Snapshot: f.Grant.Snapshot}
	case f.Grant.Recover && !f.Previous:
		return refuse("slipway cluster recover from a machine that holds data, or slipway cluster restore", "there is no data of an earlier generation on this machine that could be read; nothing was changed")
	case f.Grant.Recover:
		return Action{Kind: Recover}
	case len(f.Seen) > 0: // all of earlier generations
		return refuse("slipway cluster recover keeps its data", "%s still runs generation %d; an empty cluster would forget what it holds; nothing was changed", f.Seen[0].From, f.Seen[0].Generation)
	}
	return Action{Kind: Bootstrap}
}

// kept says what becomes of data that cannot be used.
func (f *Facts) kept() string {
	if f.Data.State != Unreadable {
		return ""
	}
	return "; the data of this machine cannot be read (" + strings.TrimSpace(f.Data.Problem) + ") and is kept"
}
