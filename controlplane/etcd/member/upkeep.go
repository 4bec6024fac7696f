package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"slipway/controlplane/etcd"
)

const (
	upkeepInterval = 15 * time.Second
	defragInterval = 10 * time.Minute

	// A database is worth defragmenting when this much of it is free pages. It
	// answers nobody meanwhile: about a second for each 100 MiB.
	freeShare, freeBytes = 0.45, 100 << 20

	// goneFor is how long a member that the config does not list, and never
	// did as far as this process knows, must be silent before it is removed: it
	// may be a machine whose config is newer than this one's.
	goneFor = 5 * time.Minute

	defragLock = "/slipway/defrag"
)

// upkeep is what a voter does now and then. One goroutine uses it.
type upkeep struct {
	next       time.Time
	nextDefrag time.Time
	noted      time.Time            // when it was last written down that there is a leader
	known      map[string]bool      // names that the config has listed
	silent     map[uint64]time.Time // since when members do not answer

	index uint64 // the learner's last, and when it grew
	since time.Time
}

// stuck says whether a learner's index has not grown for long.
func (u *upkeep) stuck(index uint64, now time.Time) bool {
	if index != u.index || u.since.IsZero() {
		u.index, u.since = index, now
	}
	return now.Sub(u.since) > stuckAfter
}

// run does what is due. What fails is tried again at the next time.
func (u *upkeep) run(ctx context.Context, s *Service, settings *etcd.Settings, own answer) {
	u.learn(settings)
	now := s.now()
	if now.Before(u.next) {
		return
	}
	u.next = now.Add(upkeepInterval)
	answers := []answer{own} // the others matter to who tidies up, the leader, and to who defragments
	if leads := own.status.Leader == own.status.Header.MemberId; leads || now.After(u.nextDefrag) {
		answers = append(s.survey(ctx, settings), own)
		s.sawRoundTrip(answers)
	}
	err := errors.Join(u.tidy(ctx, s, settings, own, answers), s.store().forget(settings.Generation))
	if now.After(u.nextDefrag) {
		u.nextDefrag = now.Add(defragInterval)
		err = errors.Join(err, s.defragIfDue(ctx, own, answers))
	}
	if err != nil {
		s.Log.Warn("upkeep", "err", err)
	}
}

func (u *upkeep) learn(settings *etcd.Settings) {
	if u.known == nil {
		u.known, u.silent = map[string]bool{}, map[uint64]time.Time{}
	}
	for _, p := range settings.Members {
		u.known[p.Name] = true
	}
}

// tidy keeps the membership what it should be: this member's address is right,
// and, on the leader's machine, members of machines that were released are gone.
func (u *upkeep) tidy(ctx context.Context, s *Service, settings *etcd.Settings, own answer, answers []answer) error {
	client, err := s.clients.to(own.endpoint)
	if err != nil {
		return err
	}
	once, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.move(once, settings, own, client); err != nil {
		return fmt.Errorf("tell the others this member's address: %w", err)
	}
	if own.status.Leader != own.status.Header.MemberId {
		return nil
	}
	members := withHealth(own.members, answers)
	id, ok := u.released(settings, members, s.now())
	if !ok {
		return nil
	}
	s.Log.Warn("removing the member of a machine that was released", "member", fmt.Sprintf("%x", id))
	if _, err := client.MemberRemove(once, id); err != nil {
		return fmt.Errorf("remove the member %x of a machine that was released: %w", id, err)
	}
	return nil
}

// released is a member to remove: it does not answer, the config does not list
// it, and the others remain a quorum. One that still runs leaves by itself.
func (u *upkeep) released(settings *etcd.Settings, members []etcd.Member, now time.Time) (uint64, bool) {
	for _, m := range members {
		if m.Healthy {
			delete(u.silent, m.ID)
			continue
		}
		if u.silent[m.ID].IsZero() {
			u.silent[m.ID] = now
		}
	}
	for _, m := range members {
		listed := slices.ContainsFunc(settings.Members, func(p etcd.Place) bool {
			return p.Name == m.Name || m.Name == "" && p.PeerURL() == m.PeerURL
		})
		due := u.known[m.Name] || now.Sub(u.silent[m.ID]) > goneFor
		if !m.Healthy && !listed && due && etcd.QuorumWithout(members, m.ID) {
			return m.ID, true
		}
	}
	return 0, false
}

func withHealth(members []*etcdserverpb.Member, answers []answer) []etcd.Member {
	var list []etcd.Member
	for _, m := range members {
		list = append(list, memberOf(m, slices.ContainsFunc(answers, func(a answer) bool {
			return a.err == nil && a.status.Header.MemberId == m.ID
		})))
	}
	return list
}

// wasteful says whether a member's database is worth defragmenting.
func wasteful(a answer) bool {
	unused := a.status.DbSize - a.status.DbSizeInUse
	return unused > freeBytes && float64(unused) > freeShare*float64(a.status.DbSize)
}

// mayDefrag says whether a member is to give its free pages back now. While it
// does, it answers nobody: so all members must be well, and those that have need
// of it take turns. A full database has no lock that would see to that.
func mayDefrag(own answer, answers []answer) bool {
	for _, a := range answers {
		if a.err != nil || a.status.Leader == 0 || wasteful(a) && before(a.status, own.status) {
			return false
		}
	}
	return wasteful(own)
}

// before orders members by ID, the leader last: it is missed most.
func before(a, b *clientv3.StatusResponse) bool {
	leads := func(s *clientv3.StatusResponse) bool { return s.Leader == s.Header.MemberId }
	if leads(a) != leads(b) {
		return leads(b)
	}
	return a.Header.MemberId < b.Header.MemberId
}

// defragIfDue gives this member's free pages back if it may, and no other one
// is at it.
func (s *Service) defragIfDue(ctx context.Context, own answer, answers []answer) error {
	if !mayDefrag(own, answers) {
		return nil
	}
	return s.defrag(ctx)
}

// defrag gives this member's free pages back, and ends the alarm that the
// database is full if it no longer is.
func (s *Service) defrag(ctx context.Context) error {
	err := s.defragLocked(ctx)
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return s.defragFull(ctx)
	}
	return err
}

// defragLocked is defrag under a lock that all members share. A database that is
// full takes none: ErrNoSpace.
func (s *Service) defragLocked(ctx context.Context) error {
	endpoint := "https://" + s.Paths.Local
	client, err := s.clients.to(endpoint)
	if err != nil {
		return err
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(60), concurrency.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("lock %s: %w", defragLock, err)
	}
	defer session.Close()
	lock := concurrency.NewMutex(session, defragLock)
	if err := lock.TryLock(ctx); errors.Is(err, concurrency.ErrLocked) {
		return errors.New("another member is being defragmented; try again when it is done")
	} else if err != nil {
		return fmt.Errorf("lock %s: %w", defragLock, err)
	}
	defer lock.Unlock(context.WithoutCancel(ctx))
	s.Log.Info("defragmenting")
	if _, err := client.Defragment(ctx, endpoint); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	return nil
}

// defragFull is defrag when etcd takes no lock since the database is full. That
// is when it is needed most, and members take turns (mayDefrag), as a person does.
// What was deleted is compacted first: API servers cannot, since each notes it
// in etcd when it does, and etcd itself does so but once an hour.
func (s *Service) defragFull(ctx context.Context) error {
	endpoint := "https://" + s.Paths.Local
	client, err := s.clients.to(endpoint)
	if err != nil {
		return err
	}
	s.Log.Info("compacting and defragmenting a full database")
	if err := compact(ctx, client, endpoint); err != nil {
		return err
	}
	if _, err := client.Defragment(ctx, endpoint); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	now, err := client.Status(ctx, endpoint)
	switch {
	case err != nil:
		return err
	case now.DbSize > s.quota()*9/10:
		return fmt.Errorf("the database is still full: %d of %d MiB are in use; nothing is lost; delete more objects, then defragment again", now.DbSize>>20, s.quota()>>20)
	}
	_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: now.Header.MemberId, Alarm: etcdserverpb.AlarmType_NOSPACE})
	return err
}

// compact forgets all that is not current. Watches that were behind begin anew.
func compact(ctx context.Context, client *clientv3.Client, endpoint string) error {
	now, err := client.Status(ctx, endpoint)
	if err != nil {
		return err
	}
	_, err = client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	return nil
}
