package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"slipway/controlplane/etcd"
)

// stuckAfter is how long a learner may go without getting nearer before people
// are told what to look at.
const stuckAfter = 2 * time.Minute

// look sees how the running member is, does what is due, and says what it
// waits for.
func (s *Service) look(ctx context.Context, settings *etcd.Settings) {
	endpoint := "https://" + s.Paths.Local
	own := s.ask(ctx, endpoint)
	if own.err != nil {
		s.wait(both(both("etcd to answer: "+reason(own.err), s.quorumText(ctx, settings, own.err)), s.diskText(settings)))
		return
	}
	if own.status.Leader != 0 {
		s.sawLeader(settings.Generation)
	}
	if own.status.IsLearner {
		s.wait(s.promote(ctx, settings, own))
		return
	}
	if own.status.Leader == 0 || !own.quorum {
		s.wait("a quorum of the members: " + othersText(s.survey(ctx, settings)))
		return
	}
	if err := s.finish(ctx, settings, own); err != nil {
		s.wait(err.Error())
		return
	}
	s.wait(both(alarm(own.status.Errors, s.quota()), s.diskText(settings)))
	s.upkeep.run(ctx, s, settings, own)
}

// sawLeader keeps when the member last had a leader, and writes it down now and
// then, so that it is known as well after a restart without the others. What is
// written may be older than what was seen, never newer.
func (s *Service) sawLeader(generation int) {
	now := s.now()
	s.set(func(t *told) { t.lastSeen = now })
	if age := now.Sub(s.upkeep.noted); age >= 0 && age < keepInterval {
		return
	}
	s.upkeep.noted = now
	if err := s.store().setLeaderSeen(generation, now); err != nil {
		s.Log.Warn("write down when this member last had a leader", "err", err)
	}
}

// recallLeader reads what was written down before this process began.
func (s *Service) recallLeader(generation int) {
	if !s.state().lastSeen.IsZero() {
		return
	}
	at, err := s.store().leaderSeen(generation)
	if err != nil {
		s.Log.Warn("read when this member last had a leader", "err", err)
		return
	}
	s.set(func(t *told) { t.lastSeen = at })
}

// quorumText is what an etcd most often waits for that listens and does not answer:
// after a start it serves nobody before there is a leader (etcd, embed/serve.go).
func (s *Service) quorumText(ctx context.Context, settings *etcd.Settings, err error) string {
	if !late(err) || len(settings.Members) < 2 {
		return ""
	}
	answers := s.survey(ctx, settings)
	if _, silent := views(answers); len(silent) == 0 {
		return ""
	}
	return "after a start it waits for a quorum of the members: " + othersText(answers)
}

// othersText says who answers, and what to do about those that do not.
func othersText(answers []answer) string {
	_, silent := views(answers)
	return fmt.Sprintf("%d of %d others answer; start those that do not %v, or slipway cluster recover", len(answers)-len(silent), len(answers), silent)
}

// alarm says what to do about etcd's own alarms.
func alarm(errs []string, quota int64) string {
	for _, e := range errs {
		switch {
		case strings.Contains(e, "NOSPACE"):
			return fmt.Sprintf("the database is full (%d MiB): nothing is lost, writes are refused; delete objects, then slipway etcd defrag", quota>>20)
		case strings.Contains(e, "CORRUPT"):
			return "the members' data differ: nothing is written any more; take a snapshot, then slipway etcd remove the member that differs, which joins anew"
		}
	}
	return ""
}

// finish completes a beginning: the boot service learns that its token was
// used, etcd is no longer told to take over old data, and the key that says
// whose data it is, and of which generation, is there for those who join.
func (s *Service) finish(ctx context.Context, settings *etcd.Settings, own answer) error {
	if settings.Token != "" {
		if err := s.finishBootstrap(ctx, settings); err != nil {
			return err
		}
	}
	if own.identity.Generation >= settings.Generation {
		return nil
	}
	return s.identify(ctx, settings, own)
}

func (s *Service) finishBootstrap(ctx context.Context, settings *etcd.Settings) error {
	r, err := s.store().record(settings.Token, settings.Generation)
	if err != nil || r.Token == "" || r.Reported {
		return err
	}
	if !r.Done {
		if err := s.letStart(etcd.Program{Paths: s.Paths, Settings: settings, Measured: s.measured(), Quota: s.Quota}); err != nil {
			return err
		}
		r.Done = true
		if err := s.store().setRecord(r); err != nil {
			return err
		}
	}
	var no refused
	if err := s.redeem(ctx, settings.Token, true); errors.As(err, &no) {
		s.Log.Warn("the boot service does not take that the cluster has begun", "err", err)
	} else if err != nil {
		s.Log.Info("waiting", "for", "the boot service to know that the cluster has begun", "err", err)
		return nil // the cluster need not wait for it
	}
	r.Reported = true
	return s.store().setRecord(r)
}

// identify writes the key that says whose data it is. Data that was restored
// keeps the identity it was born with.
func (s *Service) identify(ctx context.Context, settings *etcd.Settings, own answer) error {
	id := own.identity
	if id.Name != settings.Cluster {
		id = identity{Name: settings.Cluster, ID: settings.ClusterID}
	}
	id.Generation = settings.Generation
	text, err := json.Marshal(id)
	if err != nil {
		return err
	}
	client, err := s.clients.to(own.endpoint)
	if err != nil {
		return err
	}
	once, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := client.Put(once, clusterKey, string(text)); err != nil {
		return fmt.Errorf("etcd to take %s: %s", clusterKey, reason(err))
	}
	return nil
}

// promote asks the voters to make this learner one of them, and says what it
// waits for. Etcd itself refuses while the learner is behind.
func (s *Service) promote(ctx context.Context, settings *etcd.Settings, own answer) string {
	answers := s.survey(ctx, settings)
	s.sawRoundTrip(answers)
	var err error = errors.New("no voter answers")
	var lead uint64
	for _, a := range answers {
		if a.err != nil || a.members == nil {
			continue
		}
		lead = max(lead, a.status.RaftIndex)
		if !a.quorum {
			continue
		}
		if err = s.promoteBy(ctx, a.endpoint, own.status.Header.MemberId); err == nil {
			s.Log.Info("this member is a voter now")
			return "etcd to take note of the promotion"
		}
	}
	l := learner{applied: own.status.RaftAppliedIndex, lead: lead, err: err}
	l.stuck = s.upkeep.stuck(l.applied, s.now())
	return l.text(settings.Self())
}

// learner is how far this member is from being a voter.
type learner struct {
	applied uint64 // the last entry that it has
	lead    uint64 // the last that a voter has; 0: none answers
	err     error  // why it was not promoted
	stuck   bool   // it has got no nearer for a while
}

// text is what it waits for, and what to do if it waits in vain.
func (l learner) text(self etcd.Place) string {
	text := fmt.Sprintf("this learner to catch up: it has applied %d entries", l.applied)
	if l.lead > 0 {
		text += fmt.Sprintf(", %d to go", max(l.lead, l.applied)-l.applied)
	}
	if !errors.Is(l.err, rpctypes.ErrMemberLearnerNotReady) {
		text += "; " + reason(l.err)
	}
	if l.stuck {
		text += fmt.Sprintf("; it gets no nearer: can the leader reach %s? slipway etcd remove %s gives up, and nothing is lost", self.PeerURL(), self.Name)
	}
	return text
}

func (s *Service) promoteBy(ctx context.Context, endpoint string, id uint64) error {
	client, err := s.clients.to(endpoint)
	if err != nil {
		return err
	}
	once, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = client.MemberPromote(once, id)
	return err
}

// move has the cluster know this member's address, if its machine got another.
func (s *Service) move(ctx context.Context, settings *etcd.Settings, own answer, client *clientv3.Client) error {
	want := []string{settings.Self().PeerURL()}
	for _, m := range own.members {
		if m.ID == own.status.Header.MemberId && !slices.Equal(m.PeerURLs, want) {
			s.Log.Info("telling the others this member's address", "url", want[0])
			_, err := client.MemberUpdate(ctx, m.ID, want)
			return err
		}
	}
	return nil
}
