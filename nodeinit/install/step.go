// Package install puts systems on a machine's disk and takes them off again:
// Install, Upgrade and Rollback, each a list of named steps; a reset, whose steps
// are the node agent's and PID 1's, has a Record here. Every step
// is safe to run twice and is noted in a journal when it is done, so that after
// a power cut the operation goes on where it was, or is begun again.
//
// The order of the steps is what keeps a machine booting, not the journal: a
// slot is not bootable while it is written, it gets its one try only after what
// is on the disk was read back and checked, and the loader of a new disk is
// written last. The journal saves time, and says afterwards what happened.
//
// What a step does to disks comes from the caller, the node agent: package disk
// chooses and partitions, package slot keeps the loader's choice. Nothing here
// opens a device by itself.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Device is a partition, open for reading and writing. Sync returns when all
// that was written is on the medium.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	// Forget drops what the kernel keeps of it in memory: the next read is from
	// the medium.
	Forget() error
	Size() int64
	Close() error
}

// Step is one part of an operation. Do may be run again after it was cut short,
// and after it was done.
type Step struct {
	Name string
	Do   func(ctx context.Context) error
}

// Operation is a list of steps with a journal.
type Operation struct {
	Name  string // install, upgrade or rollback
	About Record // what to note besides the steps; Key tells this operation from another of its name
	Steps []Step
	// Whole: the operation has succeeded with its last step. An upgrade has not:
	// its slot must boot first.
	Whole bool

	Journal Journal
	Now     func() time.Time
	Told    func(step string) // called when a step begins; may be nil
}

// Run does the steps in order, without those that the journal has as done, and
// stops at the first that fails. The error names it. Run again, it goes on there.
//
// A journal that has no place yet is asked again before every step: an
// installation makes the place on its way.
func (o Operation) Run(ctx context.Context) error {
	r := running{Operation: o, rec: o.About}
	r.rec.Operation, r.rec.Started = o.Name, o.Now()
	for _, step := range o.Steps {
		if err := r.catchUp(); err != nil {
			return err
		}
		if slices.Contains(r.rec.Done, step.Name) {
			continue
		}
		if err := r.do(ctx, step); err != nil {
			return fmt.Errorf("%s: %s: %w", o.Name, step.Name, err)
		}
	}
	if !o.Whole {
		return nil
	}
	r.rec.Outcome = Succeeded
	return r.note()
}

// running is an operation on its way.
type running struct {
	Operation
	rec      Record
	caughtUp bool // with what the journal had
}

func (r *running) do(ctx context.Context, step Step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.Told != nil {
		r.Told(step.Name)
	}
	r.rec.Step, r.rec.Error = step.Name, ""
	if err := r.note(); err != nil {
		return err
	}
	if err := step.Do(ctx); err != nil {
		r.rec.Error = err.Error()
		return errors.Join(err, r.note())
	}
	r.rec.Step, r.rec.Done = "", append(r.rec.Done, step.Name)
	return r.note()
}

// catchUp takes over, once, what the journal has as done.
func (r *running) catchUp() error {
	if r.caughtUp {
		return nil
	}
	old, err := r.Journal.Load()
	if errors.Is(err, ErrNoPlace) {
		return nil
	}
	if err != nil {
		return err
	}
	r.caughtUp = true
	r.rec.resume(old)
	return nil
}

func (r *running) note() error {
	if err := r.catchUp(); err != nil { // or what it has would be lost
		return err
	}
	r.rec.Updated = r.Now()
	if err := r.Journal.Save(r.rec); err != nil && !errors.Is(err, ErrNoPlace) {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}
