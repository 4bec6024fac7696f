package qemu

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// rack is a running lab, inside its holder.
type rack struct {
	plan    plan
	log     *slog.Logger
	procs   children
	service *bootService // nil: none
	guests  []*guest
	ready   atomic.Bool
}

func newRack(p plan, log *slog.Logger) *rack {
	r := &rack{plan: p, log: log}
	if p.Config.Service != nil {
		r.service = &bootService{process: process{procs: &r.procs}, spec: *p.Config.Service}
	}
	for i, m := range p.Config.Machines {
		setDefault(&m.CPUs, p.Host.cpus(len(p.Config.Machines), runtime.NumCPU()))
		r.guests = append(r.guests, &guest{process: process{procs: &r.procs}, spec: m, tap: tapName(i), host: p.Host})
	}
	return r
}

// start brings everything up in order: network, boot service, machines.
func (r *rack) start(ctx context.Context, doing func(string)) error {
	if err := privateMounts(r.log); err != nil {
		return err
	}
	config := r.plan.Config
	bridge := netip.MustParsePrefix(config.Address) // Start has validated it
	doing(fmt.Sprintf("network: bridge %s %s, no route out", Bridge, bridge))
	if err := makeNetwork(ctx, &r.procs, config.Address, len(config.Machines)); err != nil {
		return err
	}
	if err := os.WriteFile(plainScriptFile, []byte(plainScript), 0o600); err != nil {
		return fmt.Errorf("write PXE script: %w", err)
	}
	if r.service != nil {
		doing("boot service: starting")
		if err := r.service.do(ctx, PowerOn); err != nil {
			return err
		}
	}
	if err := r.powerOn(doing); err != nil {
		return err
	}
	r.ready.Store(true)
	return nil
}

func (r *rack) powerOn(doing func(string)) error {
	if r.plan.Config.Off {
		return nil
	}
	var group errgroup.Group
	for _, g := range r.guests {
		doing(fmt.Sprintf("%s: power on (%s, %s, %d CPUs, %d MiB, %s)",
			g.spec.Name, g.spec.MAC, g.spec.Firmware, g.spec.CPUs, g.spec.MemoryMiB, g.host.Accel))
		group.Go(func() error { return g.do(PowerOn) })
	}
	return group.Wait()
}

func (r *rack) guest(name string) (*guest, error) {
	for _, g := range r.guests {
		if g.spec.Name == name {
			return g, nil
		}
	}
	return nil, fmt.Errorf("find machine %q: no such machine in lab %s", name, r.plan.Config.Name)
}

func (r *rack) status() Status {
	s := Status{Name: r.plan.Config.Name, State: StateStarting, Address: r.plan.Config.Address, Accel: r.plan.Host.Accel}
	if r.ready.Load() {
		s.State = StateUp
	}
	if r.service != nil {
		service := r.service.status()
		s.Service = &service
	}
	for _, g := range r.guests {
		s.Machines = append(s.Machines, MachineStatus{Machine: g.spec, ProcessStatus: g.status()})
	}
	return s
}
