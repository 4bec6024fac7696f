package etcd

import (
	"fmt"
	"slices"
	"strings"
)

// Facts is all that a decision about a member rests on. It holds no time and
// no connection: package member gathers it.
type Facts struct {
	Name       string // of the machine, and so of its member
	PeerURL    string
	Generation int      // the one the machine config names
	Intended   []string // the names the machine config lists
	Grant      *Grant   // nil: this machine may not start the generation
	Record     Record   // of Grant
	Data       Data
	Previous   bool     // readable data of an earlier generation is on this machine
	Seen       []View   // what other members answered
	Silent     []string // "prod-cp-2: connection refused"
	SlowDisk   string   // why the disk may not hold a new member; empty: it may
	Clock      string   // why the machine's clock cannot be right; empty: it can
}

// Grant is the leave to start a generation.
type Grant struct {
	Snapshot string // SHA-256, hex; empty: none
	Recover  bool
}

// Record is what the machine wrote down of its own bootstrap of this
// generation, before it began and after it was done.
type Record int

// The states of a bootstrap.
const (
	NoRecord Record = iota
	Begun
	Done
)

// Data is what lies in the data directory of the generation.
type Data struct {
	State     DataState
	MemberID  uint64 // of Ours
	ClusterID uint64 // of Ours
	Problem   string // of Unreadable and Foreign: what is wrong with it
}

// DataState says whether data can be used.
type DataState int

// The states of data.
const (
	NoData     DataState = iota
	Ours                 // a member of this generation's
	Unreadable           // damaged
	Foreign              // another cluster's
	Left                 // of a member that left for good
)

// View is the membership as one member told it.
type View struct {
	From       string
	ClusterID  uint64
	Generation int  // 0: the member could not say
	Quorum     bool // the answer is the whole cluster's, not just this member's memory
	Blind      bool // it is a learner, which cannot tell the members
	Members    []Member
}

// Member is a member in a View.
type Member struct {
	ID      uint64
	Name    string // empty: added, never started
	PeerURL string
	Learner bool
	Healthy bool // it answered this machine
}

func (m Member) String() string {
	if m.Name == "" {
		return fmt.Sprintf("%x (%s, never started)", m.ID, m.PeerURL)
	}
	return fmt.Sprintf("%s (%x, %s)", m.Name, m.ID, m.PeerURL)
}

// QuorumWithout says whether the cluster goes on without the member: those who
// answer are a quorum before and after. A learner is never missed, but its
// removal too is agreed on by a quorum.
func QuorumWithout(members []Member, id uint64) bool {
	var voters, healthy, left, leftHealthy int
	for _, m := range members {
		if m.Learner {
			continue
		}
		voters++
		if m.Healthy {
			healthy++
		}
		if m.ID != id {
			left++
			if m.Healthy {
				leftHealthy++
			}
		}
	}
	return healthy > voters/2 && leftHealthy > left/2
}

// current are the views of the cluster that the machine is to belong to. The
// generation is a key in etcd, and so a restored cluster names its old one for
// a moment: who holds its data knows it by its ID as well.
func (f *Facts) current() []View {
	return f.views(func(v View) bool {
		return !v.Blind && f.isCurrent(v)
	})
}

func (f *Facts) isCurrent(v View) bool {
	return v.Generation == f.Generation || f.Data.State == Ours && v.ClusterID == f.Data.ClusterID && v.Generation < f.Generation
}

func (f *Facts) views(are func(View) bool) []View {
	var some []View
	for _, v := range f.Seen {
		if are(v) {
			some = append(some, v)
		}
	}
	return some
}

// best is the view to act on: one that a quorum stands behind if there is one.
func best(views []View) View {
	if i := slices.IndexFunc(views, func(v View) bool { return v.Quorum }); i >= 0 {
		return views[i]
	}
	return views[0]
}

// silence says who did not answer, for a text.
func (f *Facts) silence() string {
	if len(f.Silent) == 0 {
		return "no other member answers"
	}
	return "no other member answers (" + strings.Join(f.Silent, "; ") + ")"
}
