package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"

	"slipway/bootsvc/inventory"
	"slipway/nodeinit/api/nodev1"
)

// ErrNoMember says that no member of a cluster gave a snapshot.
var ErrNoMember = errors.New("no member of etcd gave a snapshot")

// Member is a machine that is to run a member of a cluster's etcd.
type Member struct {
	Hostname string
	Address  netip.Addr // invalid: not known yet
}

// MembersOf are machines that run members, as a Taker knows them.
func MembersOf(machines []inventory.Machine) []Member {
	members := make([]Member, len(machines))
	for i, m := range machines {
		members[i] = Member{Hostname: m.Hostname, Address: m.Address}
	}
	return members
}

// Taker takes snapshots from members, one at a time. Use NewTaker.
type Taker struct {
	store  *Store
	status func(context.Context, netip.Addr) (*nodev1.EtcdStatusResponse, error)
	pull   func(context.Context, netip.Addr, func(io.Reader) error) error
	turn   chan struct{} // holds one token: whoever has it writes to the disk
}

// NewTaker returns a Taker that keeps what it takes in a store.
func NewTaker(s *Store, n *Nodes) *Taker {
	return &Taker{store: s, status: n.Status, pull: n.pull, turn: make(chan struct{}, 1)}
}

// Take has a snapshot taken from the member that is disturbed least, or from
// the next one if that fails, and keeps it. It blocks until then. If nobody
// gives one, the error is ErrNoMember with what each of them said; a full disk
// is ErrFull at once.
func (t *Taker) Take(ctx context.Context, o Origin, members []Member) (Snapshot, error) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return Snapshot{}, ctx.Err()
	}
	defer func() { <-t.turn }()
	answers := t.ask(ctx, members)
	var problems []error
	for _, a := range order(answers) {
		if a.err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", a.member.Hostname, a.err))
			continue
		}
		one, err := t.takeFrom(ctx, o, a)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrFull) {
			return one, err
		}
		problems = append(problems, fmt.Errorf("%s: %w", a.member.Hostname, err))
	}
	return Snapshot{}, fmt.Errorf("take a snapshot of %s: %w: %w", o.Cluster, ErrNoMember, errors.Join(problems...))
}

func (t *Taker) takeFrom(ctx context.Context, o Origin, a answer) (one Snapshot, err error) {
	o.Size = a.status.GetDbSize()
	err = t.pull(ctx, a.member.Address, func(from io.Reader) error {
		one, err = t.store.Keep(o, from)
		return err
	})
	return one, err
}

// answer is what a member says of itself, or why it does not.
type answer struct {
	member Member
	status *nodev1.EtcdStatusResponse
	err    error
}

// ask asks all members at once.
func (t *Taker) ask(ctx context.Context, members []Member) []answer {
	answers := make([]answer, len(members))
	var group sync.WaitGroup
	for i, member := range members {
		answers[i] = answer{member: member, err: errors.New("its address is not known yet")}
		if member.Address.IsValid() {
			group.Go(func() { answers[i].status, answers[i].err = t.status(ctx, member.Address) })
		}
	}
	group.Wait()
	return answers
}

// order is pure: healthy voters first, of them the leader last, since it has
// the most to do; then those whose data may be behind, freshest first; at the
// end those that did not answer.
func order(answers []answer) []answer {
	rank := func(a answer) int {
		s := a.status
		switch {
		case a.err != nil:
			return 4
		case !s.GetRunning():
			return 3
		case s.GetLearner() || s.GetLeaderId() == "":
			return 2
		case s.GetLeaderId() == s.GetMemberId():
			return 1
		}
		return 0
	}
	answers = slices.Clone(answers)
	slices.SortStableFunc(answers, func(a, b answer) int {
		if by := cmp.Compare(rank(a), rank(b)); by != 0 {
			return by
		}
		return cmp.Compare(b.status.GetRevision(), a.status.GetRevision())
	})
	return answers
}
