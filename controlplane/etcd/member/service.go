// Package member is the unit etcd-member: beside the upstream etcd it keeps the
// machine's membership what the machine config says. It gathers facts, has
// package etcd decide, acts, and writes etcd's configuration; then it lets etcd
// start and stays, to promote the member once it has caught up, to tidy up, and
// to answer EtcdService. Cmd/init runs it as a process of its own.
//
// It starts and stops no program: that is the supervisor's.
//
//	gather ──► Decide ──► act ──┐ wait, refuse, add, remove: once more
//	   ▲                        │
//	   ├────────────────────────┘
//	   │ etcd does not run, and may not       │ start, join, bootstrap, restore, recover
//	   └──────────────── keep ◄───────────────┘ etcd.yaml is written, etcd may start
package member

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/controlplane/etcd"
)

const (
	pollInterval = time.Second      // between looks at the facts, and at a member that is not a voter yet
	keepInterval = 10 * time.Second // between looks at one that is
	bootTimeout  = 30 * time.Second // for the boot service to answer
)

// Service is the unit. Its exported fields are not changed once it runs.
type Service struct {
	Paths etcd.Paths
	Log   *slog.Logger
	Now   func() time.Time // nil: time.Now
	Quota int64            // what etcd's database may grow to, bytes; 0: etcd.Quota

	// Measure times the machine for data in a folder; nil: its disk and its
	// processor, for two seconds at most.
	Measure func(dir string) (etcd.Measured, error)

	clients clients
	upkeep  upkeep

	mu    sync.Mutex // guards what is below
	told  told
	limit etcd.Measured
}

// told is what the service tells others.
type told struct {
	mayStart  bool      // etcd's configuration is written
	waiting   string    // what keeps the member from being a healthy voter
	lastSeen  time.Time // when the member last had a leader; zero: not known
	heartbeat time.Duration
	election  time.Duration
}

// Main runs the unit as a program until ctx ends.
func Main(ctx context.Context, log *slog.Logger) error {
	s := &Service{Paths: etcd.NodePaths(), Log: log}
	return s.Run(ctx, func() {})
}

// Run blocks until ctx is done. It calls ready when etcd may start. It fails
// only if it cannot serve; whatever else goes wrong it says, and tries again.
func (s *Service) Run(ctx context.Context, ready func()) error {
	s.clients.pki = s.Paths.PKI
	defer s.clients.close()
	s.wait("the first look at the machine and at the other members")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.serve(ctx) })
	group.Go(func() error { s.live(ctx, ready); return nil })
	return group.Wait()
}

// live enters the cluster and keeps in it, again and again.
func (s *Service) live(ctx context.Context, ready func()) {
	ready = sync.OnceFunc(ready)
	for ctx.Err() == nil {
		settings, err := s.settings()
		if err == nil {
			s.recallLeader(settings.Generation)
			err = s.enter(ctx, settings)
		}
		switch {
		case errors.Is(err, errAgain):
			continue
		case err != nil:
			s.wait(err.Error())
			pause(ctx, pollInterval)
			continue
		}
		s.set(func(t *told) { t.mayStart = true })
		ready()
		s.keep(ctx)
	}
}

// errAgain has the facts looked at once more, at once.
var errAgain = errors.New("look again")

// enter does what is to be done until etcd may start; nil means that it may.
// An error is what is waited for.
func (s *Service) enter(ctx context.Context, settings *etcd.Settings) error {
	if err := s.measure(); err != nil {
		return err
	}
	running, err := inUse(s.store().data(settings.Generation))
	if err != nil {
		return err
	}
	if running { // it was let start before this process was
		heartbeat, election := etcd.TimingIn(s.Paths.Config)
		s.set(func(t *told) { t.heartbeat, t.election = heartbeat, election })
		return nil
	}
	facts, answers, err := s.facts(ctx, settings)
	if err != nil {
		return err
	}
	s.sawRoundTrip(answers)
	action := etcd.Decide(facts)
	if action.Kind != etcd.Wait && action.Kind != etcd.Refuse {
		s.Log.Info("decided", "action", string(action.Kind), "generation", settings.Generation)
	}
	return s.act(ctx, settings, action, answers)
}

// keep stays while etcd runs, or is about to. It returns when etcd does not
// run and may not be started as it is, or ctx is done.
func (s *Service) keep(ctx context.Context) {
	stopped := 0
	for ctx.Err() == nil {
		settings, err := s.settings()
		if err != nil {
			s.wait(err.Error())
			pause(ctx, pollInterval)
			continue
		}
		running, err := inUse(s.store().data(settings.Generation))
		switch {
		case err != nil:
			s.wait(err.Error())
		case running:
			stopped = 0
			s.look(ctx, settings)
		default:
			if stopped++; stopped > 3 && !s.mayStart(ctx, settings) {
				return
			}
			s.wait(both("etcd to start", s.diskText(settings)))
		}
		pause(ctx, s.interval())
	}
}

// mayStart decides anew about a member whose etcd does not run. One that was let
// start and has written nothing yet, because the machine is busy, is not held
// back again by what the others are too busy to answer.
func (s *Service) mayStart(ctx context.Context, settings *etcd.Settings) bool {
	facts, _, err := s.facts(ctx, settings)
	if err != nil {
		return true // that is no reason to do anything
	}
	kind := etcd.Decide(facts).Kind
	return kind == etcd.Start || kind == etcd.Join || facts.Data.State == etcd.NoData && (kind == etcd.Wait || facts.Record != etcd.NoRecord)
}

func (s *Service) interval() time.Duration {
	if s.state().waiting != "" {
		return pollInterval
	}
	return keepInterval
}

// settings reads what the machine config says now.
func (s *Service) settings() (*etcd.Settings, error) {
	text, err := os.ReadFile(s.Paths.Settings)
	if err != nil {
		return nil, fmt.Errorf("read etcd's settings: %w", err)
	}
	settings := &etcd.Settings{}
	if err := json.Unmarshal(text, settings); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.Paths.Settings, err)
	}
	return settings, nil
}

// measure times the machine, once; a disk that was too slow is timed again, and
// its best time counts: a machine that has just started may be busy with much else.
func (s *Service) measure() error {
	before := s.measured()
	if before.Sign != 0 && before.SlowDisk() == "" {
		return nil
	}
	look := measure
	if s.Measure != nil {
		look = s.Measure
	}
	m, err := look(s.Paths.Data)
	if err != nil {
		return err
	}
	if before.Sign != 0 {
		m.Fsync = min(m.Fsync, before.Fsync)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.RoundTrip = s.limit.RoundTrip
	s.limit = m
	return nil
}

// sawRoundTrip keeps the longest round trip among the answers.
func (s *Service) sawRoundTrip(answers []answer) {
	var longest time.Duration
	for _, a := range answers {
		if a.err == nil {
			longest = max(longest, a.roundTrip)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit.RoundTrip = longest
}

func (s *Service) measured() etcd.Measured {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit
}

// wait sets what the member waits for; empty: nothing. It logs what is new.
func (s *Service) wait(text string) {
	if s.state().waiting == text {
		return
	}
	s.set(func(t *told) { t.waiting = text })
	if text != "" {
		s.Log.Info("waiting", "for", text)
	}
}

func (s *Service) set(change func(*told)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.told)
}

func (s *Service) state() told {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

func (s *Service) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Service) quota() int64 { return cmp.Or(s.Quota, etcd.Quota) }

func (s *Service) store() store { return store{s.Paths.Data} }

// diskText is what to know of a filesystem that is nearly full; else empty.
func (s *Service) diskText(settings *etcd.Settings) string {
	left, size := free(s.Paths.Data)
	return fullDisk(left, size, settings)
}

// fullDisk says what to do about a filesystem of which little is left, in bytes;
// nothing if there is enough, or if its size is not known. Without this member
// there is an API to delete pods with only if there are others.
//
// Where there is a kubelet, it came first: with less than evictionHard's 5 % free
// it removes pulled images that no container uses, and then evicts pods, one every
// ten seconds (Kubernetes' pkg/kubelet/eviction/eviction_manager.go). What it
// leaves is what only a person may take.
func fullDisk(left, size uint64, settings *etcd.Settings) string {
	const enough = 64 << 20 // etcd's log grows by files of 64 MB
	if size == 0 || left >= enough {
		return ""
	}
	text := fmt.Sprintf("the disk has %d MiB left: nothing is lost, and etcd goes on by itself once there is room; ", left>>20)
	if len(settings.Members) > 1 {
		return text + fmt.Sprintf("delete pods that hold much there (kubectl get pods -A --field-selector spec.nodeName=%s): what they wrote goes with them, and the kubelet removes images that they had pulled; "+
			"or have the machine join anew with a larger disk or install.dataSize (slipway node reset %s --force, then slipway node join)", settings.Name, settings.Name)
	}
	return text + "where pods run, the kubelet removes pulled images that no container uses, and then evicts pods that hold much; if that does not help, " +
		"slipway cluster restore brings a snapshot back onto a machine with a larger disk or install.dataSize"
}

// both is two texts as one; either may be empty.
func both(one, other string) string {
	if one == "" || other == "" {
		return one + other
	}
	return one + "; " + other
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
