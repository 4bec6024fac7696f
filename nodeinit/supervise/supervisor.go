package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// The life of a unit:
//
//	waiting ──► starting ──► ready
//	   ▲           │           │       the service returned
//	   │           ▼           ▼
//	   └──────── backoff ◄─────┘──► done (OnFailure, no error)
//
// and from anywhere, when told to: stopping ──► stopped. A unit whose
// dependency ends is left alone: programs know how to wait for each other once
// they have started. Only a RestartError restarts another: stopping ──► backoff.
const (
	firstDelay = 250 * time.Millisecond // before the first restart; doubled for each next
	lastDelay  = 30 * time.Second
	stableRun  = time.Minute // a run of this length makes the next delay the first again
)

// Supervisor runs units. Its methods may be called from any goroutine.
type Supervisor struct {
	log *slog.Logger

	applying sync.Mutex // one Apply or Stop at a time

	mu      sync.Mutex // guards all below, and the fields of each runner
	runners []*runner
	changed chan struct{} // closed at each change of a status
	closed  bool
}

// runner is one unit on its way.
type runner struct {
	unit   Unit
	status Status
	cancel context.CancelFunc
	again  context.CancelCauseFunc // ends this run only; nil: none is on
	ended  chan struct{}           // closed when the unit is Stopped or Done
	told   bool                    // to stop
	logged bool                    // its first state
}

// New makes a supervisor without units. It logs each change of state.
func New(log *slog.Logger) *Supervisor {
	return &Supervisor{log: log, changed: make(chan struct{})}
}

// Apply makes units what runs, and blocks until what is to go has stopped, or
// ctx is done. A unit that is as it was keeps running; one that changed is
// stopped and started anew; its dependents are not disturbed. The same list
// again changes nothing. If the list is not sound, nothing happens.
func (s *Supervisor) Apply(ctx context.Context, units []Unit) error {
	if err := Check(units); err != nil {
		return err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	keep, leave, err := s.sort(units)
	if err != nil {
		return err
	}
	if err := s.stop(ctx, leave); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runners = nil
	for _, u := range units {
		r := keep[u.Name]
		if r == nil {
			r = s.start(u)
		} else {
			r.unit.After = u.After
		}
		s.runners = append(s.runners, r)
	}
	s.broadcast()
	return nil
}

// sort splits what runs into what stays and what must go.
func (s *Supervisor) sort(units []Unit) (keep map[string]*runner, leave []*runner, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, fmt.Errorf("apply units: the node is shutting down")
	}
	keep = make(map[string]*runner)
	for _, r := range s.runners {
		same := func(u Unit) bool { return r.unit.same(u) }
		if !r.told && slices.ContainsFunc(units, same) {
			keep[r.unit.Name] = r
		} else {
			leave = append(leave, r)
		}
	}
	return keep, leave, nil
}

// start is called with mu held.
func (s *Supervisor) start(u Unit) *runner {
	ctx, cancel := context.WithCancel(context.Background())
	r := &runner{unit: u, cancel: cancel, ended: make(chan struct{})}
	r.status = Status{Name: u.Name, State: Waiting, Since: time.Now()}
	go func() {
		defer close(r.ended)
		defer cancel()
		s.run(ctx, r)
	}()
	return r
}

// run is a unit's life. It returns when the unit is Stopped or Done.
func (s *Supervisor) run(ctx context.Context, r *runner) {
	delay := firstDelay
	for {
		if !s.await(ctx, r) {
			s.set(r, Stopped, nil)
			return
		}
		began := time.Now()
		err := s.once(ctx, r)
		switch {
		case ctx.Err() != nil:
			s.set(r, Stopped, err)
			return
		case err == nil && r.unit.Restart == OnFailure:
			s.set(r, Done, nil)
			return
		case err == nil:
			err = fmt.Errorf("ended by itself")
		}
		if time.Since(began) >= stableRun {
			delay = firstDelay
		}
		var other *RestartError
		if errors.As(err, &other) {
			s.restart(other.Unit, other)
		}
		s.backoff(ctx, r, delay, err)
		delay = min(2*delay, lastDelay)
	}
}

// once runs the unit's service until it returns. If it was restarted, its error
// is why.
func (s *Supervisor) once(ctx context.Context, r *runner) error {
	run, end := context.WithCancelCause(ctx)
	defer end(nil)
	s.mu.Lock()
	r.again = end
	s.mu.Unlock()
	err := call(run, r.unit.Service, func() { s.ready(r) })
	s.mu.Lock()
	r.again = nil
	s.mu.Unlock()
	if why := context.Cause(run); why != nil && ctx.Err() == nil {
		return errors.Join(why, err)
	}
	return err
}

// restart has a unit begin anew if it runs. It does not wait.
func (s *Supervisor) restart(name string, why *RestartError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runners {
		if r.unit.Name == name && r.again != nil && !r.told {
			s.transition(r, Stopping, "", nil)
			r.again(why.Err)
		}
	}
}

// call runs a service once. A panic is its error: one service must not take
// the others with it.
func call(ctx context.Context, service Service, ready func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return service.Run(ctx, ready)
}

// await blocks until all that the unit comes After is ready, and marks it
// Starting. It returns false if the unit is stopped first.
func (s *Supervisor) await(ctx context.Context, r *runner) bool {
	for {
		s.mu.Lock()
		missing := s.missing(r.unit.After)
		switch {
		case ctx.Err() != nil:
		case len(missing) == 0:
			s.transition(r, Starting, "", nil)
		default:
			s.transition(r, Waiting, strings.Join(missing, ", "), nil)
		}
		changed := s.changed
		s.mu.Unlock()
		if ctx.Err() != nil || len(missing) == 0 {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// missing is called with mu held.
func (s *Supervisor) missing(after []string) (names []string) {
	for _, name := range after {
		i := slices.IndexFunc(s.runners, func(r *runner) bool { return r.unit.Name == name })
		if i < 0 || s.runners[i].status.State != Ready && s.runners[i].status.State != Done {
			names = append(names, name)
		}
	}
	return names
}

func (s *Supervisor) ready(r *runner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.status.State == Starting {
		s.transition(r, Ready, "", nil)
	}
}

func (s *Supervisor) backoff(ctx context.Context, r *runner, delay time.Duration, err error) {
	s.mu.Lock()
	r.status.Restarts++
	s.transition(r, Backoff, fmt.Sprintf("restart in %s", delay), err)
	s.mu.Unlock()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (s *Supervisor) set(r *runner, state State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transition(r, state, "", err)
}

// transition is called with mu held. It logs what is new of state, not of what
// is waited for meanwhile.
func (s *Supervisor) transition(r *runner, state State, waitingFor string, err error) {
	isNew := r.status.State != state || !r.logged
	if !isNew && r.status.WaitingFor == waitingFor {
		return
	}
	if r.status.State != state {
		r.status.Since = time.Now()
	}
	r.status.State, r.status.WaitingFor, r.logged = state, waitingFor, true
	log := s.log.With("unit", r.unit.Name)
	switch {
	case err != nil:
		r.status.LastError = err.Error()
		log.Error(string(state), "err", err)
	case isNew && waitingFor != "":
		log.Info(string(state), "for", waitingFor)
	case isNew:
		log.Info(string(state))
	}
	s.broadcast()
}

// broadcast is called with mu held.
func (s *Supervisor) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}
