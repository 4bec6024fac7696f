package lifecycle

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestLimit: a part of the start that hangs ends with a restart, with a word, and
// with a watchdog that nobody feeds.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeWatchdog{bitten: make(chan bool)}
		w := watchdogOf(fake)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.Run(ctx, func() {})
		var said strings.Builder
		began, restarted := time.Now(), make(chan time.Duration, 1)
		limit := Limit{Log: slog.New(slog.NewTextHandler(&said, nil)), Watchdog: w, Restart: func() { restarted <- time.Since(began) }}
		limit.Begin("mounting /var", 10*time.Minute)
		if after := <-restarted; after != 10*time.Minute {
			t.Errorf("it restarted after %s", after)
		}
		if !strings.Contains(said.String(), `in="mounting /var" after=10m0s`) {
			t.Errorf("it said %q", said.String())
		}
		<-fake.bitten // or the test ends as a deadlock: the restart hung
		if after := time.Since(began); after > 10*time.Minute+biteAfter {
			t.Errorf("it was fed until %s", after)
		}
	})
}

// TestLimitBesideADeafLog: a console that takes nothing is not what keeps the
// machine from its restart.
func TestLimitBesideADeafLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := deafLog{nil, &atomic.Int32{}, make(chan struct{})}
		began, restarted := time.Now(), make(chan time.Duration, 1)
		Limit{Log: slog.New(log), Watchdog: &Watchdog{}, Restart: func() { restarted <- time.Since(began) }}.Begin("a driver", time.Minute)
		if after := <-restarted; after > time.Minute+patience {
			t.Errorf("it restarted after %s", after)
		}
		close(log.release)
	})
}

// TestLimitKept: what ends in time goes on, with its watchdog fed.
func TestLimitKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Watchdog{}
		timer := Limit{Log: slog.New(slog.DiscardHandler), Watchdog: w, Restart: func() { t.Error("it restarted") }}.Begin("a driver", time.Minute)
		time.Sleep(59 * time.Second)
		timer.Reset(time.Hour)
		time.Sleep(59 * time.Minute)
		timer.Stop()
		time.Sleep(time.Hour)
		if w.starved.Load() {
			t.Error("the watchdog gets nothing")
		}
	})
}
