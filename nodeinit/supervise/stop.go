package supervise

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Stop stops every unit, each after those that come After it, and blocks until
// all have stopped or ctx is done; the error then names those that have not.
// No unit starts any more. It may be repeated.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	s.closed = true
	all := s.runners
	s.mu.Unlock()
	return s.stop(ctx, all)
}

// Retire stops one unit and those that come after it, directly or not, and
// leaves the others alone. It blocks as Stop does. Without such a unit there is
// nothing to do.
func (s *Supervisor) Retire(ctx context.Context, name string) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	var leaving []*runner
	for _, r := range s.runners {
		if r.unit.Name == name {
			leaving = append(leaving, r)
		}
	}
	for i := 0; i < len(leaving); i++ {
		for _, d := range dependents(leaving[i], s.runners) {
			if !slices.Contains(leaving, d) {
				leaving = append(leaving, d)
			}
		}
	}
	s.mu.Unlock()
	return s.stop(ctx, leaving)
}

// stop stops the units of leaving: all at once, except that each waits for its
// dependents among them. When ctx is done, order is given up.
func (s *Supervisor) stop(ctx context.Context, leaving []*runner) error {
	var all sync.WaitGroup
	for _, r := range leaving {
		all.Go(func() {
			for _, d := range dependents(r, leaving) {
				wait(ctx, d.ended)
			}
			s.stopOne(r)
			wait(ctx, r.ended)
		})
	}
	all.Wait()
	return stillRunning(ctx, leaving)
}

// stopOne asks a unit to stop, unless it has already ended.
func (s *Supervisor) stopOne(r *runner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.status.State != Stopped && r.status.State != Done {
		s.transition(r, Stopping, "", nil)
	}
	r.told = true
	r.cancel()
}

func wait(ctx context.Context, ended <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-ended:
	}
}

func dependents(of *runner, among []*runner) (list []*runner) {
	for _, r := range among {
		for _, name := range r.unit.After {
			if name == of.unit.Name {
				list = append(list, r)
			}
		}
	}
	return list
}

func stillRunning(ctx context.Context, runners []*runner) error {
	var names []string
	for _, r := range runners {
		select {
		case <-r.ended:
		default:
			names = append(names, r.unit.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("stop %s: %w", strings.Join(names, ", "), ctx.Err())
}
