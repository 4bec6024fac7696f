// Package agent is the node's agent: the process that PID 1 starts as
// `slipway-init agent`. It takes a machine from "the kernel runs" to "the Node
// is Ready": network, enrolment, config, and then reports and the node API.
//
//	network up ──► enrolled ──► configured ──► applied by PID 1 ──► reports, node API
//	 (netconf)      key, words,   once, over      units start          until it is stopped
//	                certificate   mutual TLS
//
// Each arrow may be broken by a crash of the agent, of the boot service or of
// the network: what was reached is in the state directory, and an agent that
// starts again goes on there. It never takes a node down: it starts no unit
// itself, and what runs goes on running without it.
//
// It is part of the init binary and so imports neither Kubernetes nor etcd.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/nodeinit/early"
	"slipway/nodeinit/netconf"
	"slipway/nodeinit/supervise"
	"slipway/nodeinit/sysdisk"
	"slipway/nodeinit/worker"
)

// InitStarted is the environment variable by which PID 1 tells the agent when
// it started: in milliseconds since the kernel did.
const InitStarted = "SLIPWAY_INIT_STARTED"

// Main runs the agent of this machine until ctx ends. It returns early only
// when the agent cannot go on; to start it again is right then.
func Main(ctx context.Context, log *slog.Logger) error {
	screen, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	defer screen.Close()
	clock := systemClock()
	c := &console{out: screen, log: log, sinceBoot: clock.sinceBoot}
	booted, err := bootedSlot(early.SlotFile)
	if err != nil {
		return err
	}
	s := storeOf(booted)
	cmdline, err := commandLine(ctx, c, s)
	if err != nil {
		return fmt.Errorf("read the kernel command line: %w", err)
	}
	args, err := arguments(cmdline, s)
	a := system(args, booted, s, c, clock)
	disk := bootedDisk(booted, cmdline)
	a.disk = disk
	if err != nil {
		c.say("this machine cannot enrol: %v", err)
		return errors.Join(fmt.Errorf("read the kernel command line: %w", err), a.lookAtRoot(ctx))
	}
	disk.Machine, disk.Anew, disk.Source = args.Machine, args.Anew, imageSource(args)
	a.initStart = startOf(os.Getenv(InitStarted))
	return a.run(ctx)
}

// startOf reads InitStarted. Without it the timeline has init start with the kernel.
func startOf(text string) time.Duration {
	ms, _ := strconv.ParseInt(text, 10, 64)
	return time.Duration(ms) * time.Millisecond
}

// agent is a node agent with all that it touches of its machine.
type agent struct {
	args    Args
	store   store
	runtime string // directory where PID 1 and its units leave their marks
	socket  string // PID 1's
	listen  string // address of the node API
	files   fs.FS  // the machine's root, for facts
	console *console
	clock   clock
	again   time.Duration // pause before a machine enrols with a new key

	initStart time.Duration // when PID 1 started, since the kernel did

	booted    disklayout.Slot // empty: the machine runs from RAM
	disk      systemDisk
	corrupted func() (bool, error) // is the root image
	root      *rootWatch           // nil: it runs from RAM
	found     *sysdisk.Found       // runs from RAM, though it is installed there; nil: it is not

	// network is ready once changed was told a lease.
	network     func(waiting func(what, next string), changed func(netconf.Lease)) supervise.Service
	setHostname func(hostname string, addr netip.Addr) error
	// retire has the machine's Node deleted, and returns when it is.
	retire func(context.Context, *machine.Config) error
}

// runtimeDir is where PID 1 and its units leave their marks.
const runtimeDir = "/run/slipway"

// bootedSlot reads the slot that PID 1 says the machine booted from; empty: it runs from RAM.
func bootedSlot(path string) (disklayout.Slot, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read what the machine booted from: %w", err)
	}
	return disklayout.Slot(strings.TrimSpace(string(text))), nil
}

// storeOf is where the machine's state is: in memory, or on the state partition.
func storeOf(booted disklayout.Slot) store {
	memory := store{dir: filepath.Join(runtimeDir, "state")}
	if booted == "" {
		return memory
	}
	return store{dir: "/state/machine", boot: memory.dir}
}

// system is the agent of this machine.
func system(args Args, booted disklayout.Slot, s store, c *console, clock clock) *agent {
	return &agent{
		args: args, store: s, runtime: runtimeDir,
		socket: filepath.Join(runtimeDir, "init.sock"), listen: ":8444",
		files: os.DirFS("/"), console: c, clock: clock, again: 5 * time.Second,
		booted: booted, corrupted: early.RootCorrupted,
		network: func(waiting func(what, next string), changed func(netconf.Lease)) supervise.Service {
			return &netconf.Network{Config: netconf.Config{
				Boot: args.MAC(), Root: "/", Sys: "/sys", Log: c.log, Waiting: waiting, Changed: changed, Last: s.lease(),
			}}
		},
		setHostname: func(hostname string, addr netip.Addr) error {
			return netconf.SetHostname("/", hostname, addr)
		},
		retire: func(ctx context.Context, config *machine.Config) error {
			return retireNode(ctx, config, worker.NodeAccess(config), runtimeDir)
		},
	}
}

// run lives the machine's life until ctx ends.
func (a *agent) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if a.booted != "" {
		if err := a.disk.CameUp(); err != nil {
			a.console.log.Warn("tell the loader that the machine has come up", "error", err)
		}
		a.root = a.watchRoot()
		group.Go(func() error { return a.root.run(ctx) })
	}
	leases := make(chan netconf.Lease, 1)
	network := a.network(a.console.wait, func(l netconf.Lease) {
		select {
		case leases <- l:
		default: // the address stays, so the first lease says it all
		}
	})
	group.Go(func() error { return network.Run(ctx, func() {}) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case lease := <-leases:
			a.console.say("the network is up: %s on %s", lease.Address, lease.Link)
			if err := a.store.saveLease(lease); err != nil {
				return err
			}
			return a.live(ctx, lease)
		}
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// live enrols and goes on from there; with a new key if the old one is of no
// use any more, after a pause: a boot service in disorder is not flooded with
// keys to approve.
func (a *agent) live(ctx context.Context, lease netconf.Lease) error {
	if err := a.adopt(ctx); err != nil {
		return err
	}
	for {
		err := a.identify(ctx, lease)
		if err == nil {
			err = a.enrolled(ctx, lease)
		}
		if !errors.Is(err, errKeyRefused) && !errors.Is(err, errDelivered) && !errors.Is(err, errWiped) {
			return err
		}
		a.found = nil
		a.console.say("%v; makes a new key and enrols again in %s", err, a.again)
		if err := a.store.forget(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.again):
		}
	}
}
