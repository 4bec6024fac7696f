// Package supervise starts services in order, restarts them when they end,
// and stops them in reverse. A service may be a process or a goroutine; the
// supervisor sees no difference. PID 1 and the node agent are its callers.
package supervise

import (
	"context"
	"time"
)

// Service is something that runs. Run blocks; cancelling ctx stops it, and
// its return is its having stopped. It calls ready once, when others may rely
// on it. Run may be called again after it has returned.
type Service interface {
	Run(ctx context.Context, ready func()) error
}

// RestartError is how a service ends because another unit is to start anew. That
// one is stopped and started again too, if it runs; Err is then its error as well.
type RestartError struct {
	Unit string
	Err  error
}

func (e *RestartError) Error() string { return e.Err.Error() }
func (e *RestartError) Unwrap() error { return e.Err }

// Func is a Service made of a function.
type Func func(ctx context.Context, ready func()) error

// Run calls f.
func (f Func) Run(ctx context.Context, ready func()) error { return f(ctx, ready) }

// Unit is a service with its place among others.
type Unit struct {
	Name    string
	After   []string // units that must be ready before this one starts
	Service Service
	Restart Restart
}

// Restart says what to do when a unit's service returns.
type Restart int

const (
	Always    Restart = iota // restart it, with capped backoff
	OnFailure                // restart it when it returned an error; nil means done
)

// State is where a unit is.
type State string

// The states. A unit of one run (OnFailure) counts as ready once Done.
const (
	Waiting  State = "waiting"  // for the units in After
	Starting State = "starting" // running, not ready yet
	Ready    State = "ready"
	Backoff  State = "backoff" // it ended and will be restarted
	Stopping State = "stopping"
	Stopped  State = "stopped"
	Done     State = "done"
)

// Status is a unit's state, for people and for the API.
type Status struct {
	Name       string
	State      State
	Since      time.Time
	Restarts   int
	WaitingFor string // "etcd" while Waiting; "restart in 2s" in Backoff
	LastError  string
	PID        int // 0 unless the service is a process that runs
}
