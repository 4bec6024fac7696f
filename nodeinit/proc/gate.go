package proc

import (
	"context"
	"sync/atomic"
	"time"

	"slipway/nodeinit/supervise"
)

// gateInterval is between a gate's looks: it waits for minutes, often.
const gateInterval = 2 * time.Second

// Gate is a service that is ready once its probe succeeds, or has failed for as
// long as Patience: what comes After it is held back that long, and no longer.
// It then does nothing until it is stopped.
type Gate struct {
	Probe    Probe
	Patience time.Duration

	waiting atomic.Value // string
}

// Run probes until the gate opens, calls ready and blocks until ctx ends.
func (g *Gate) Run(ctx context.Context, ready func()) error {
	limited, cancel := context.WithTimeout(ctx, g.Patience)
	defer cancel()
	again := time.NewTicker(gateInterval)
	defer again.Stop()
	for {
		err := g.Probe.Probe(limited)
		if err == nil || limited.Err() != nil {
			break
		}
		g.waiting.Store(err.Error())
		select {
		case <-limited.Done():
		case <-again.C:
		}
	}
	g.waiting.Store("")
	if ctx.Err() == nil {
		ready()
	}
	<-ctx.Done()
	return nil
}

// WaitingFor is why the probe failed last.
func (g *Gate) WaitingFor() string {
	text, _ := g.waiting.Load().(string)
	return text
}

// Equal reports whether other does the same.
func (g *Gate) Equal(other supervise.Service) bool {
	o, ok := other.(*Gate)
	return ok && g.Probe == o.Probe && g.Patience == o.Patience
}
