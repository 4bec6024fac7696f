package agent

import (
	"context"
	"crypto/sha256"
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
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/netconf"
)

// identify enrols, unless the machine was itself before it restarted: it has its
// key, a certificate and a config then, and needs nobody to go on. A
// certificate that is not valid, or not by this clock, is seen to as it goes.
func (a *agent) identify(ctx context.Context, lease netconf.Lease) error {
	_, err := a.store.certificate()
	config, _ := a.storedConfig()
	if a.booted != "" && err == nil && config != nil {
		return nil
	}
	return a.enrol(ctx, lease, false)
}

// enrol gets the machine a certificate; another one, if anew.
func (a *agent) enrol(ctx context.Context, lease netconf.Lease, anew bool) error {
	e := &enrolment{
		args: a.args, store: a.store, trust: a.trust(), console: a.console, clock: a.clock,
		facts: func() enroll.Facts { return Facts(a.files) }, address: lease.Address.Addr(), anew: anew, strange: a.strange(),
	}
	return e.enrol(ctx)
}

func (a *agent) trust() *trust {
	return &trust{
		host:    a.args.Server.Hostname(),
		clock:   a.clock.now,
		anchors: func() [][sha256.Size]byte { return a.store.anchors(a.args.CA) },
	}
}

// enrolled is the life of a machine with a certificate. That it enrolled is
// in the boot service's own timeline. Dates count here, right or wrong: only
// who enrols sets the clock, and the renewer sees to that when they make no sense.
func (a *agent) enrolled(ctx context.Context, lease netconf.Lease) error {
	trust := a.trust()
	trust.clockIsSet()
	news := make(chan verdict, 1)
	client, done := machineClient(a.args, a.store, trust, news)
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
		installed: a.booted != "", disk: a.disk,
	}
	upgrade := &upgrader{
		booted: a.booted, config: a.storedConfig, disk: a.disk, reports: reports, console: a.console, pid1: nodes,
	}
	health := a.health(reports)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return reports.run(ctx) })
	group.Go(func() error { return watchFacts(ctx, a.files, reports) })
	group.Go(func() error {
		return bootRelay{to: client}.serve(ctx, filepath.Join(a.runtime, bootSocket), a.console.log)
	})
	group.Go(func() error {
		r := &renewer{
			pin: a.args.CA, store: a.store, client: client, console: a.console, clock: a.clock, news: news, renewed: reports.poke,
			enrol: func(ctx context.Context) error { return a.enrol(ctx, lease, true) },
		}
		return r.run(ctx)
	})
	group.Go(func() error {
		people := &api{store: a.store, init: nodes, etcd: etcd, reset: reset, upgrade: upgrade, health: health, log: a.console.log}
		return people.serve(ctx, listener)
	})
	if health != nil {
		group.Go(func() error { return health.run(ctx) })
	}
	group.Go(func() error {
		n := nodeLife{
			agent: a, lease: lease, client: client, reports: reports, reset: reset, health: health,
			nodes: nodes, pid1: nodev1connect.NewInitServiceClient(pid1, "http://init"),
		}
		return n.configure(ctx)
	})
	return group.Wait()
}

// health looks after the slot that the machine booted from; nil: it runs from RAM.
func (a *agent) health(reports *reporter) *health {
	if a.booted == "" {
		return nil
	}
	return &health{
		booted: a.booted, disk: a.disk, root: a.root, reports: reports, console: a.console, missing: "its config",
	}
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

// nodeLife is a machine's life from its config on.
type nodeLife struct {
	agent   *agent
	lease   netconf.Lease
	client  bootv1connect.MachineServiceClient
	reports *reporter
	reset   *resetter
	health  *health // nil: the machine runs from RAM
	nodes   nodev1connect.NodeServiceClient
	pid1    nodev1connect.InitServiceClient
}

// configure makes the machine what its config says, then follows the config and
// the machine's units until ctx ends. A machine that is to live on a disk and
// runs from RAM installs itself instead.
func (n nodeLife) configure(ctx context.Context) error {
	a, reports := n.agent, n.reports
	if a.found != nil {
		return n.toDisk(ctx, a.found)
	}
	if how, err := n.resetting(); err != nil || how != "" {
		return errors.Join(err, n.reset.resume(ctx, how))
	}
	d := &delivery{client: n.client, store: a.store, console: a.console, failed: func(err error) { reports.problem(err.Error()) }, prepare: n.prepare}
	data, config, err := d.config(ctx)
	if err != nil {
		return err
	}
	reports.problem("")
	reports.event(event{name: "configured", detail: string(config.Role) + " of " + config.Cluster.Name, at: a.clock.sinceBoot()})
	a.console.say("configured as %s, %s of cluster %s", config.Hostname, config.Role, config.Cluster.Name)
	if err := a.setHostname(config.Hostname, n.lease.Address.Addr()); err != nil {
		return err
	}
	f := &follower{
		agent: a, lease: n.lease, delivery: d, reports: reports, pid1: n.pid1,
		released: n.reset.released, next: make(chan wanted, 1),
	}
	first := wanted{data, config}
	if a.booted == "" && config.Install.OnDisk() {
		return n.install(ctx, f, first)
	}
	if a.booted != "" {
		if err := a.disk.Adopt(config.Cluster.Name, config.Install.DataSize); err != nil {
			a.console.say("%v", err) // it is asked for again at the next start, and only a new installation needs it
		}
	}
	reports.state(newProgress(config.Role, reports.has("ready")).phase())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.run(ctx, first) })
	group.Go(func() error { return a.awaitRegistered(ctx, reports) })
	group.Go(func() error { return n.watch(ctx, config) })
	return group.Wait()
}

// prepare has PID 1 start what every node runs, and returns when all of it does.
func (n nodeLife) prepare(ctx context.Context) error {
	started, err := n.pid1.Prepare(ctx, connect.NewRequest(&nodev1.PrepareRequest{}))
	if err != nil {
		return err
	}
	return unitsReady(ctx, n.pid1, started.Msg.Units...)
}

// install has the machine's config as it is now put on a disk.
func (n nodeLife) install(ctx context.Context, f *follower, first wanted) error {
	if err := f.delivery.acknowledge(ctx, first.digest()); err != nil {
		return err
	}
	i := &installation{
		disk: n.agent.disk, store: n.agent.store, client: n.client, reports: n.reports, console: n.agent.console, gone: n.restart,
		next: func(ctx context.Context, have wanted) (wanted, error) {
			next, err := f.await(ctx, have)
			if err != nil {
				return have, err
			}
			return next, f.delivery.acknowledge(ctx, next.digest())
		},
	}
	return i.run(ctx, first)
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

// watch follows PID 1's units and reports the milestones, and what keeps the
// machine from being healthy.
func (n nodeLife) watch(ctx context.Context, config *machine.Config) error {
	return n.agent.console.until(ctx, watching, "PID 1's units", func(ctx context.Context) error {
		stream, err := n.pid1.WatchUnits(ctx, connect.NewRequest(&nodev1.WatchUnitsRequest{}))
		if err != nil {
			return err
		}
		defer stream.Close()
		p := newProgress(config.Role, n.reports.has("ready"))
		for stream.Receive() {
			for _, e := range p.update(stream.Msg()) {
				n.reports.event(e)
			}
			n.reports.state(p.phase())
			if n.health != nil {
				n.health.says(p.unhealthy(config))
			}
		}
		return errors.Join(errEnded, stream.Err())
	})
}

// Marks that the agent and the unit "node" leave each other: the Node exists,
// with its UID; the node leaves its cluster, and the Node is to go.
const (
	registeredMark = "node-registered"
	leavingMark    = "leaving"
)

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
