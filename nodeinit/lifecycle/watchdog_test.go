package lifecycle

import (
	"context"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeWatchdog restarts its machine when it was not fed for its time.
type fakeWatchdog struct {
	bite    *time.Timer
	timeout time.Duration
	bitten  chan bool
}

func (f *fakeWatchdog) SetTimeout(seconds int) error {
	f.timeout = time.Duration(seconds) * time.Second
	f.bite = time.AfterFunc(f.timeout, func() { close(f.bitten) })
	return nil
}

func (f *fakeWatchdog) KeepAlive() error { f.bite.Reset(f.timeout); return nil }

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeWatchdog{bitten: make(chan bool)}
		w := &Watchdog{Open: func() (WatchdogDevice, error) { return fake, nil }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := w.Run(ctx, func() {}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := w.guard(Deadline); err != nil {
			t.Fatal(err)
		}
		<-fake.bitten // or the test ends as a deadlock
		if took := time.Since(began); took < Deadline || took > Deadline+biteAfter {
			t.Errorf("a shutdown of %s was cut after %s", Deadline, took)
		}
	})
}

// TestWatchdogThatComesLate: its driver is loaded while the machine starts.
func TestWatchdogThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeWatchdog{bitten: make(chan bool)}
		there := time.Now().Add(3 * time.Second)
		w := &Watchdog{Open: func() (WatchdogDevice, error) {
			if time.Now().Before(there) {
				return nil, fs.ErrNotExist
			}
			return fake, nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Run(ctx, func() {}); err != nil {
			t.Fatal(err)
		}
		<-fake.bitten // it was armed, and nobody feeds it any more
	})
}

func TestNoWatchdogIsFine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{fs.ErrNotExist, unix.ENODEV} {
			w := &Watchdog{Open: func() (WatchdogDevice, error) { return nil, err }}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := w.Run(ctx, func() {}); err != nil {
				t.Error(err)
			}
			if err := w.guard(time.Minute); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Hour)
	})
}
