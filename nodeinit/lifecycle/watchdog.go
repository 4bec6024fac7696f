package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Watchdog is the hardware that restarts the machine unless it is told in time
// that all is well (kernel: watchdog/watchdog-api). A machine without one is
// fine. Once armed it stays so: what ends then is the machine.
type Watchdog struct {
	Open func() (WatchdogDevice, error) // of this machine: OpenWatchdog
	Log  *slog.Logger

	starved atomic.Bool

	mu     sync.Mutex
	device WatchdogDevice
}

// WatchdogDevice is the hardware.
type WatchdogDevice interface {
	SetTimeout(seconds int) error
	Timeout() (time.Duration, error) // an error: it does not say
	KeepAlive() error
	Bit() (bool, error) // the machine's latest restart was its doing
}

// biteAfter is how long the machine may hang; feedEvery allows for a busy one.
const (
	biteAfter   = 60 * time.Second
	feedEvery   = 10 * time.Second
	lookForEach = time.Second // for a watchdog whose driver is not there yet
)

// Run is a supervise.Func: it arms the watchdog as soon as there is one, at the
// latest when ctx ends, and feeds it until then.
func (w *Watchdog) Run(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(lookForEach)
	defer tick.Stop()
	for {
		if err := w.arm(); err != nil {
			return err
		}
		if w.armed() {
			return w.feed(ctx)
		}
		select {
		case <-ctx.Done():
			return w.arm()
		case <-tick.C:
		}
	}
}

func (w *Watchdog) armed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.device != nil
}

// arm opens the watchdog. No error if the machine has none.
func (w *Watchdog) arm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.device != nil {
		return nil
	}
	device, err := w.Open()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the watchdog: %w", err)
	}
	w.device = device
	// Some hardware knows one time only, and says so; it is armed all the same.
	if err := device.SetTimeout(int(biteAfter.Seconds())); err != nil {
		w.Log.Warn("the watchdog keeps its own time", "err", err)
	}
	return nil
}

// Bit arms the watchdog, and reports whether it says that the machine's latest
// restart was its doing: what ran before hung. Much hardware never says it.
func (w *Watchdog) Bit() (bool, error) {
	if err := w.arm(); err != nil {
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.device == nil {
		return false, nil
	}
	return w.device.Bit()
}

// Starve has nobody feed the watchdog any more: it restarts the machine should
// whatever else is to do that hang. It returns at once.
func (w *Watchdog) Starve() { w.starved.Store(true) }

// feed feeds an armed watchdog until ctx ends.
func (w *Watchdog) feed(ctx context.Context) error {
	tick := time.NewTicker(w.interval())
	defer tick.Stop()
	for {
		if err := w.feedOnce(); err != nil {
			return fmt.Errorf("feed the watchdog: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// interval is how often it is fed: as often as a busy machine can be late for,
// by the time that the hardware keeps.
func (w *Watchdog) interval() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.device == nil {
		return feedEvery
	}
	if bite, err := w.device.Timeout(); err == nil && bite > 0 {
		return min(feedEvery, bite/3)
	}
	return feedEvery
}

func (w *Watchdog) feedOnce() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.device == nil || w.starved.Load() {
		return nil
	}
	return w.device.KeepAlive()
}

// guard lets the watchdog restart the machine some time after a shutdown should
// have. It returns at once.
func (w *Watchdog) guard(shutdown time.Duration) error {
	if err := w.arm(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdown)
	go func() {
		defer cancel()
		_ = w.feed(ctx) // what is not fed bites
	}()
	return nil
}

// passed names the environment variable with the number of an open watchdog: the
// initramfs arms it, and goes on as another program.
const passed = "SLIPWAY_WATCHDOG"

// WatchdogPassed reports whether this program has been given an armed watchdog
// that it must feed.
func WatchdogPassed() bool { return os.Getenv(passed) != "" }

// OpenWatchdog opens that of this machine, or takes what it was given. The file is
// never closed: that could disarm it.
func OpenWatchdog() (WatchdogDevice, error) {
	if number, err := strconv.Atoi(os.Getenv(passed)); err == nil {
		unix.CloseOnExec(number)
		return hardware(number), os.Unsetenv(passed)
	}
	fd, err := unix.Open("/dev/watchdog", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return hardware(fd), nil
}

// OpenWatchdogToPass opens it for this program and the one that follows it: the
// kernel lets nobody open it a second time.
func OpenWatchdogToPass() (WatchdogDevice, error) {
	fd, err := unix.Open("/dev/watchdog", unix.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return hardware(fd), os.Setenv(passed, strconv.Itoa(fd))
}

// hardware is an open watchdog.
type hardware int

func (h hardware) SetTimeout(seconds int) error {
	return unix.IoctlSetPointerInt(int(h), unix.WDIOC_SETTIMEOUT, seconds)
}

func (h hardware) Timeout() (time.Duration, error) {
	seconds, err := unix.IoctlGetInt(int(h), unix.WDIOC_GETTIMEOUT)
	return time.Duration(seconds) * time.Second, err
}

func (h hardware) Bit() (bool, error) {
	status, err := unix.IoctlGetInt(int(h), unix.WDIOC_GETBOOTSTATUS)
	return status&unix.WDIOF_CARDRESET != 0, err
}

func (h hardware) KeepAlive() error { return unix.IoctlWatchdogKeepalive(int(h)) }
