package supervise

import (
	"context"
	"slices"
	"time"
)

// Status returns every unit's status, in the order of Apply. What a service
// itself knows, its process and what it waits for while it starts, is asked of
// its methods PID and WaitingFor, if it has them.
func (s *Supervisor) Status() []Status {
	all, _ := s.snapshot()
	return all
}

func (s *Supervisor) snapshot() ([]Status, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.runners))
	for _, r := range s.runners {
		status := r.status
		if p, ok := r.unit.Service.(interface{ PID() int }); ok {
			status.PID = p.PID()
		}
		if w, ok := r.unit.Service.(interface{ WaitingFor() string }); ok && status.State == Starting {
			status.WaitingFor = w.WaitingFor()
		}
		all = append(all, status)
	}
	return all, s.changed
}

// askAgain is how often a service that starts is asked what it waits for: that
// changes without a change of its unit's state.
const askAgain = 5 * time.Second

// Watch calls f with every unit's status, then again after each change and every
// few seconds while a unit starts, until ctx is done or f returns an error, which it
// returns. Changes that come faster than f returns are seen as one.
func (s *Supervisor) Watch(ctx context.Context, f func([]Status) error) error {
	for {
		all, changed := s.snapshot()
		if err := f(all); err != nil {
			return err
		}
		var again <-chan time.Time
		if slices.ContainsFunc(all, func(s Status) bool { return s.State == Starting }) {
			again = time.After(askAgain)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-again:
		}
	}
}
