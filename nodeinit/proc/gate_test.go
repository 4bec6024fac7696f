package proc

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// closed is a probe that fails a number of times.
type closed struct{ times *int }

func (closed) String() string { return "closed" }

func (c closed) Probe(context.Context) error {
	if *c.times--; *c.times < 0 {
		return nil
	}
	return errors.New("the first one to be done")
}

func TestGate(t *testing.T) {
	for name, test := range map[string]struct {
		failures int
		opens    time.Duration
	}{
		"open":              {0, 0},
		"opens":             {3, 3 * gateInterval},
		"is not waited for": {1000, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				gate := &Gate{Probe: closed{&test.failures}, Patience: time.Minute}
				began, ended := time.Now(), make(chan error)
				opened := make(chan time.Duration, 1)
				go func() { ended <- gate.Run(ctx, func() { opened <- time.Since(began) }) }()
				synctest.Wait()
				if want := "the first one to be done"; test.opens > 0 && gate.WaitingFor() != want {
					t.Errorf("it waits for %q, want %q", gate.WaitingFor(), want)
				}
				if got := <-opened; got != test.opens {
					t.Errorf("it opened after %v, want %v", got, test.opens)
				}
				if gate.WaitingFor() != "" {
					t.Errorf("open, it waits for %q", gate.WaitingFor())
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
