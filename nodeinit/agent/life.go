package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/netconf"
)

// enrol gets the machine a certificate.
func (a *agent) enrol(ctx context.Context, lease netconf.Lease) error {
	e := &enrolment{
		args: a.args, store: a.store, trust: a.trust(), console: a.console, clock: a.clock,
		facts: Facts(a.files), address: lease.Address.Addr(),
	}
	return e.enrol(ctx)
}

func (a *agent) trust() *trust { return &trust{host: a.args.Server.Hostname(), pin: a.args.CA} }

// enrolled is the life of a machine with a certificate. That it enrolled is
// in the boot service's own timeline.
func (a *agent) enrolled(ctx context.Context, lease netconf.Lease) error {
	trust := a.trust()
	trust.clockIsSet()
	client, done := machineClient(a.args, a.store, trust)
	defer done()
	reports := newReporter(client, a.store, a.console, a.clock)
	reports.event(event{name: "kernel"})
	reports.event(event{name: "init", at: a.initStart})

	listener, err := net.Listen("tcp", a.listen)
	if err != nil {
		return fmt.Errorf("listen for the node API: %w", err)
	}
	transport := unixTransport(a.socket)
	defer transport.CloseIdleConnections()
	pid1 := &http.Client{Transport: transport}
	etcd, hangUp := a.etcdClient()
	defer hangUp()

	nodes := nodev1connect.NewNodeServiceClient(pid1, "http://init")
	reset := &resetter{
		config: a.storedConfig, etcd: etcd, pid1: nodes, reports: reports, console: a.console, retire: a.retire,
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return reports.run(ctx) })
	group.Go(func() error {
		return bootRelay{to: client}.serve(ctx, filepath.Join(a.runtime, bootSocket), a.console.log)
	})
	group.Go(func() error {
		again := func(ctx context.Context) error { return a.enrol(ctx, lease) }
		return (&renewer{store: a.store, client: client, console: a.console, enrol: again}).run(ctx)
	})
	group.Go(func() error {
		people := &api{store: a.store, init: nodes, etcd: etcd, reset: reset, log: a.console.log}
		return people.serve(ctx, listener)
	})
	group.Go(func() error {
		return a.configure(ctx, lease, client, reports, reset, nodev1connect.NewInitServiceClient(pid1, "http://init"))
	})
	return group.Wait()
}

// storedConfig is the config that was delivered last, nil if there is none.
func (a *agent) storedConfig() (*machine.Config, error) {
	data, err := a.store.load(configFile)
	if err != nil || data == nil {
		return nil, err
	}
	return machine.Parse(data, configFile)
}

func unixTransport(socket string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
}

// configure makes the machine what its config says, then follows the config and
// the machine's units until ctx ends.
func (a *agent) configure(ctx context.Context, lease netconf.Lease, client bootv1connect.MachineServiceClient, reports *reporter, reset *resetter, pid1 nodev1connect.InitServiceClient) error {
	d := &delivery{client: client, store: a.store, console: a.console, failed: func(err error) { reports.problem(err.Error()) }}
	data, config, err := d.config(ctx)
	if err != nil {
		return err
	}
	reports.problem("")
	reports.event(event{name: "configured", detail: string(config.Role) + " of " + config.Cluster.Name, at: a.clock.sinceBoot()})
	reports.state(newProgress(config.Role, reports.has("ready")).phase())
	a.console.say("configured as %s, %s of cluster %s", config.Hostname, config.Role, config.Cluster.Name)
	if err := a.setHostname(config.Hostname, lease.Address.Addr()); err != nil {
		return err
	}
	f := &follower{
		agent: a, lease: lease, delivery: d, reports: reports, pid1: pid1,
		released: reset.released, next: make(chan wanted, 1),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.run(ctx, wanted{data, config}) })
	group.Go(func() error { return a.awaitRegistered(ctx, reports) })
	group.Go(func() error { return a.watch(ctx, config.Role, reports, pid1) })
	return group.Wait()
}

func addresses(list []netip.Addr) (texts []string) {
	for _, addr := range list {
		texts = append(texts, addr.String())
	}
	return texts
}

// watching has no deadline: the stream stays open as long as PID 1 lives.
var watching = attempts{first: 250 * time.Millisecond, most: 5 * time.Second}

// errEnded is the end of a stream that has none.
var errEnded = errors.New("the stream ended")

// watch follows PID 1's units and reports the milestones.
func (a *agent) watch(ctx context.Context, role machine.Role, reports *reporter, pid1 nodev1connect.InitServiceClient) error {
	return a.console.until(ctx, watching, "PID 1's units", func(ctx context.Context) error {
		stream, err := pid1.WatchUnits(ctx, connect.NewRequest(&nodev1.WatchUnitsRequest{}))
		if err != nil {
			return err
		}
		defer stream.Close()
		p := newProgress(role, reports.has("ready"))
		for stream.Receive() {
			for _, e := range p.update(stream.Msg()) {
				reports.event(e)
			}
			reports.state(p.phase())
		}
		return errors.Join(errEnded, stream.Err())
	})
}

// registeredMark is the file that the unit "node" leaves once the Node object exists.
const registeredMark = "node-registered"

// awaitRegistered reports when the Node was registered. It looks rather than
// watches: four looks a second at a file in memory cost nothing.
func (a *agent) awaitRegistered(ctx context.Context, reports *reporter) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		if info, err := os.Stat(filepath.Join(a.runtime, registeredMark)); err == nil {
			reports.event(event{name: "registered", at: a.clock.sinceBoot() - max(time.Since(info.ModTime()), 0)})
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
