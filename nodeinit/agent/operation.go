package agent

import (
	"context"
	"sync"
)

// operation is something that a machine does once at a time, for all who ask
// for it: who asks while it is under way sees that one. S is what is told of it.
type operation[S any] struct {
	mu    sync.Mutex
	under *operationRun[S] // nil: none is under way
}

// operationRun is one run, for those who watch it.
type operationRun[S any] struct {
	told    []S
	err     error
	ended   bool
	changed chan struct{} // closed at each change
}

// run does it, or watches if that is under way already. With again it is begun
// anew after another has failed.
func (o *operation[S]) run(ctx context.Context, again bool, do func(tell func(S)) error, tell func(S)) error {
	for {
		run, mine := o.begin()
		if mine {
			err := do(func(s S) {
				o.change(run, func() { run.told = append(run.told, s) })
				tell(s)
			})
			o.change(run, func() { run.err, run.ended, o.under = err, true, nil })
			return err
		}
		if err := o.watch(ctx, run, tell); err == nil || !again {
			return err
		}
	}
}

// begin returns the run that is under way, or a new one that is the caller's.
func (o *operation[S]) begin() (run *operationRun[S], mine bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.under != nil {
		return o.under, false
	}
	o.under = &operationRun[S]{changed: make(chan struct{})}
	return o.under, true
}

func (o *operation[S]) change(run *operationRun[S], change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
	close(run.changed)
	run.changed = make(chan struct{})
}

// watch tells of a run that somebody else began, until its end.
func (o *operation[S]) watch(ctx context.Context, run *operationRun[S], tell func(S)) error {
	for told := 0; ; {
		o.mu.Lock()
		steps, ended, err, changed := run.told[told:], run.ended, run.err, run.changed
		o.mu.Unlock()
		for _, s := range steps {
			tell(s)
			told++
		}
		if ended {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
