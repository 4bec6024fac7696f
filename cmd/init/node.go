package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"slipway/configs/version"
	"slipway/configs/wipe"
	"slipway/nodeinit/agent"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/early"
	"slipway/nodeinit/lifecycle"
	"slipway/nodeinit/logring"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
	"slipway/nodeinit/sysdisk"
)

// logDir is where the units' logs are, besides memory.
const logDir = "/var/log/slipway"

// enterRoot is PID 1 in the initramfs. It ends by running the program anew.
func enterRoot() {
	defer survive()
	os.Setenv(agent.InitStarted, strconv.FormatInt(sinceBoot().Milliseconds(), 10))
	log := slog.New(logring.NewConsole(os.Stdout, logring.Open(""), sinceBoot))
	if err := early.Console(log); err != nil {
		panic(err)
	}
	// Its driver comes with those of the disks, if the machine boots from one.
	watchdog := &lifecycle.Watchdog{Open: lifecycle.OpenWatchdogToPass, Log: log}
	entering := lifecycle.Limit{Log: log, Watchdog: watchdog, Restart: lifecycle.Restart}.Begin("the way to the root image", partLimit)
	ctx, cancel := context.WithCancel(context.Background())
	fed := make(chan error, 1)
	go func() { fed <- watchdog.Run(ctx, func() {}) }()
	leave := func() {
		cancel()
		if err := <-fed; err != nil {
			log.Warn("no watchdog guards this start", "err", err)
		}
		entering.Stop()
	}
	panic(early.EnterRoot(log, leave))
}

// runNode is PID 1 on the root image. The main thread reaps; the rest is in
// one goroutine here and in the units.
func runNode() {
	defer survive()
	go func() {
		defer survive()
		startAndEnd()
	}()
	panic(proc.Reap(context.Background()))
}

// startAndEnd starts the units, waits until somebody asks for the end, and
// ends the machine.
func startAndEnd() {
	screen, err := logring.OpenScreen("/dev/console")
	if err != nil {
		screen = io.Discard // a machine without any console is to work as well
	}
	logs := logring.Open(logDir)
	log := slog.New(logring.NewConsole(screen, logs, sinceBoot))
	log.Info("Slipway "+version.Version, "kernel", kernelRelease())
	units := supervise.New(log)
	watchdog := &lifecycle.Watchdog{Open: lifecycle.OpenWatchdog, Log: log.With("unit", "watchdog")}
	feed := supervise.Unit{Name: "watchdog", Service: once(watchdog.Run)}
	if lifecycle.WatchdogPassed() { // to check a file system may take long
		if err := units.Apply(context.Background(), []supervise.Unit{feed}); err != nil {
			panic(err)
		}
	}
	booted, err := (&start{log: log, watchdog: watchdog}).prepare()
	if err != nil {
		log.Error("the machine is not as it should be", "err", err)
	}
	asked := make(chan lifecycle.End, 1)
	n := &node{
		log: log, logs: logs, units: units, booted: booted, broken: err,
		watchdog: feed,
		shutdown: func(how lifecycle.End) {
			select {
			case asked <- how:
			default: // it has begun
			}
		},
	}
	if err := units.Apply(context.Background(), n.baseUnits()); err != nil {
		panic(err)
	}
	go func() {
		powerOff, _ := lifecycle.Signalled(context.Background())
		n.shutdown(lifecycle.End{PowerOff: powerOff})
	}()
	how := <-asked
	lifecycle.Node{Log: log, Units: units, CloseLogs: logs.Close, Watchdog: watchdog}.Shutdown(how)
}

// node is what PID 1 runs.
type node struct {
	log      *slog.Logger
	logs     *logring.Logs
	units    *supervise.Supervisor
	booted   early.Booted
	broken   error // what could not be prepared; nil: nothing
	watchdog supervise.Unit
	shutdown func(lifecycle.End) // begins it; does not wait for its end
}

// asked begins a shutdown as the agent asks for it.
func (n *node) asked(r *nodev1.RebootRequest) error {
	how := lifecycle.End{PowerOff: r.PowerOff, Kexec: r.Kexec}
	if r.Wipe != "" {
		means, err := wipe.Parse(r.Wipe)
		if err != nil {
			return err
		}
		if how.Wipe, err = sysdisk.Wipe(n.booted.Disk, means); err != nil {
			return err
		}
	}
	n.shutdown(how)
	return nil
}

// survive keeps a PID 1 that cannot go on from halting the machine: it says
// why, gives people time to read, and restarts.
func survive() {
	why := recover()
	if why == nil {
		return
	}
	const pause = 10 * time.Second
	fmt.Fprintf(os.Stderr, "\n[%9.3f] init: %v\n%s\nrestarting in %s\n", sinceBoot().Seconds(), why, debug.Stack(), pause)
	time.Sleep(pause)
	lifecycle.Restart()
}

// sinceBoot is the time since the kernel started.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
