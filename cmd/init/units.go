package main

import (
	"context"
	"log/slog"
	"os"
	"sync"

	"slipway/configs/machine"
	"slipway/configs/version"
	"slipway/controlplane"
	"slipway/nodeinit/agent"
	"slipway/nodeinit/api"
	"slipway/nodeinit/early"
	"slipway/nodeinit/lifecycle"
	"slipway/nodeinit/module"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/slot"
	"slipway/nodeinit/supervise"
	"slipway/nodeinit/sysdisk"
	"slipway/nodeinit/trial"
	"slipway/nodeinit/worker"
)

// baseUnits are what runs on every machine, before and beside its config.
func (n *node) baseUnits() []supervise.Unit {
	log := n.log
	server := &api.Server{
		Units: n.units, Rings: n.logs, Version: version.Version,
		Plan: func(config *machine.Config, identity machine.Identity) ([]proc.File, []supervise.Unit, error) {
			identity.Emulated = early.Emulated()
			return plan(config, identity)
		},
		Common:   worker.Common,
		Runner:   proc.Runner{CgroupRoot: early.UnitCgroup, Log: n.logs.Writer},
		Shutdown: n.asked,
		System:   api.System{Proc: "/proc", Cgroups: early.UnitCgroup, Kmsg: "/dev/kmsg"},
	}
	serve := func(ctx context.Context, ready func()) error { return server.Serve(ctx, api.Socket, ready) }
	loader := sync.OnceValues(func() (*module.Loader, error) { return module.NewLoader("/") })
	server.Base = []supervise.Unit{
		{Name: "devices", Service: &devices{loader, log.With("unit", "devices")}},
		{Name: api.Prerequisite, Service: &modules{loader, log.With("unit", api.Prerequisite)}, After: []string{"devices"}, Restart: supervise.OnFailure},
		{Name: "power-button", After: []string{api.Prerequisite}, Service: &lifecycle.PowerButton{Dir: "/dev/input", Pressed: func() { n.shutdown(lifecycle.End{PowerOff: true}) }}},
		{Name: "api", Service: once(serve)},
		{Name: "agent", After: []string{"api"}, Service: &proc.Process{
			Name: "agent", Path: early.Self, Args: []string{"agent"}, Env: []string{agent.InitStarted + "=" + os.Getenv(agent.InitStarted)},
		}},
	}
	if n.booted.Slot != "" {
		server.Base = append(server.Base, n.diskUnits()...)
	}
	server.Runner.Adopt(server.Base)
	return server.Base
}

// diskUnits are those of a machine that can fall back to another slot: they see
// to it that it does, whatever hangs.
func (n *node) diskUnits() []supervise.Unit {
	guard := &trial.Guard{
		Journal: stateJournal,
		Loader:  func() (slot.Slots, error) { return sysdisk.Slots(n.booted.Disk) },
		Broken:  n.broken, Booted: n.booted.Slot, Version: version.Version,
		SinceBoot: sinceBoot, Restart: func() { n.shutdown(lifecycle.End{}) }, Log: n.log.With("unit", "trial"),
	}
	return []supervise.Unit{
		n.watchdog,
		{Name: "trial", Service: guard, Restart: supervise.OnFailure},
	}
}

// plan is what a config comes to. A worker has no control plane; a machine for
// etcd has nothing of Kubernetes.
func plan(config *machine.Config, identity machine.Identity) ([]proc.File, []supervise.Unit, error) {
	var files []proc.File
	if config.Role != machine.EtcdOnly {
		var err error
		if files, err = worker.Files(config, identity); err != nil {
			return nil, nil, err
		}
	}
	more, err := controlplane.Files(config, identity)
	if err != nil {
		return nil, nil, err
	}
	return append(files, more...), planUnits(config, identity), nil
}

func planUnits(config *machine.Config, identity machine.Identity) []supervise.Unit {
	units := controlplane.Units(config, identity)
	if config.Role == machine.EtcdOnly {
		return units
	}
	return append(units, worker.Units(config, identity)...)
}

// once makes a function a service that is the same each time the base units
// are applied (functions cannot be compared, pointers can).
func once(f supervise.Func) supervise.Service { return &function{f} }

type function struct{ supervise.Func }

// devices is the unit that loads drivers.
type devices struct {
	loader func() (*module.Loader, error)
	log    *slog.Logger
}

// Run loads drivers until it is stopped.
func (d *devices) Run(ctx context.Context, ready func()) error {
	loader, err := d.loader()
	if err != nil {
		return err
	}
	return (&module.Devices{Loader: loader, Log: d.log, Sys: "/sys"}).Run(ctx, ready)
}

// modules is the unit that loads what a node needs whatever its devices are.
type modules struct {
	loader func() (*module.Loader, error)
	log    *slog.Logger
}

// Run loads and ends; it is ready once the essential ones are there. A kernel
// may lack a module; what needs it will say so.
func (m *modules) Run(ctx context.Context, ready func()) error {
	loader, err := m.loader()
	if err != nil {
		return err
	}
	if err := loader.Load(ctx, early.Essential...); err != nil {
		m.log.Warn("not all modules loaded", "err", err)
	}
	if err := early.BridgeSettings(m.log); err != nil {
		return err
	}
	ready()
	if err := loader.Load(ctx, early.Expected...); err != nil {
		m.log.Warn("not all modules loaded", "err", err)
	}
	return nil
}
