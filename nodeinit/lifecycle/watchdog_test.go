package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeWatchdog restarts its machine when it was not fed for its time.
type fakeWatchdog struct {
	bite    *time.Timer
	timeout time.Duration
	own     time.Duration // the only time that it knows; 0: it knows any
	bitten  chan bool
}

func (f *fakeWatchdog) SetTimeout(seconds int) error {
	f.timeout = cmp.Or(f.own, time.Duration(seconds)*time.Second)
	f.bite = time.AfterFunc(f.timeout, func() { close(f.bitten) })
	if f.own != 0 {
		return unix.EOPNOTSUPP
	}
	return nil
}

func (f *fakeWatchdog) Timeout() (time.Duration, error) { return f.timeout, nil }

func (f *fakeWatchdog) KeepAlive() error { f.bite.Reset(f.timeout); return nil }

func (f *fakeWatchdog) Bit() (bool, error) { return true, nil }

// watchdogOf is a watchdog that is there.
func watchdogOf(device WatchdogDevice) *Watchdog {
	return &Watchdog{Open: func() (WatchdogDevice, error) { return device, nil }, Log: slog.New(slog.DiscardHandler)}
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeWatchdog{bitten: make(chan bool)}
		w := watchdogOf(fake)
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

// TestWatchdogWithItsOwnTime: it is armed by then, and must be fed in its time.
func TestWatchdogWithItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeWatchdog{own: 6 * time.Second, bitten: make(chan bool)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := watchdogOf(fake).Run(ctx, func() {}); err != nil {
			t.Error(err)
		}
		select {
		case <-fake.bitten:
			t.Error("it was not fed in time")
		default:
		}
		<-fake.bitten // once nobody feeds it
	})
}

// TestBit: what the hardware says of the latest restart, if it is there.
func TestBit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if bit, err := watchdogOf(&fakeWatchdog{bitten: make(chan bool)}).Bit(); !bit || err != nil {
			t.Errorf("%t, %v", bit, err)
		}
		for open, want := range map[error]error{fs.ErrNotExist: nil, unix.EBUSY: unix.EBUSY} {
			w := &Watchdog{Open: func() (WatchdogDevice, error) { return nil, open }}
			if bit, err := w.Bit(); bit || !errors.Is(err, want) {
				t.Errorf("%v: %t, %v", open, bit, err)
			}
		}
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
