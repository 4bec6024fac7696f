// Package lifecycle ends a node: everything stopped in order, file systems
// safe, then the machine restarts or powers off. Every step has a deadline, all
// together have one, and if even that fails the hardware watchdog does it.
// PID 1 calls it, last.
package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Step is one part of an operation. Do should return once ctx is done; if it
// does not, it is left behind.
type Step struct {
	Name     string
	Deadline time.Duration
	Do       func(ctx context.Context) error
}

// patience is what a step has, after its deadline, to say what it left undone.
const patience = 500 * time.Millisecond

// run does the steps in order, each until its deadline. A step that fails is
// logged and does not keep the next from being tried.
func run(log *slog.Logger, steps []Step) {
	for _, step := range steps {
		began := time.Now()
		err := step.run()
		took := time.Since(began).Round(time.Millisecond)
		if err != nil {
			log.Warn(step.Name, "took", took, "err", err)
		} else {
			log.Info(step.Name, "took", took)
		}
	}
}

func (s Step) run() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.Deadline)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Do(ctx) }()
	late := time.NewTimer(s.Deadline + patience)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("still not done after %s: left behind", s.Deadline)
	}
}
