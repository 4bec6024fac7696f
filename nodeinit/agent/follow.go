package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/machine"
	"slipway/configs/wipe"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/netconf"
	"slipway/nodeinit/supervise"
)

// wanted is a config as it was delivered and as it reads.
type wanted struct {
	data   []byte
	config *machine.Config
}

func (w wanted) digest() []byte {
	sum := sha256.Sum256(w.data)
	return sum[:]
}

// follower keeps the machine's config what the boot service says, and the node
// what its config says:
//
//	boot service ──► poll ──► state directory ──► apply ──► PID 1
//	      ▲            │ receipt                    │ applied
//	      └────────────┴────────────────────────────┘
//
// The two halves run side by side: a config that PID 1 cannot apply is
// replaced by the next one. While the boot service is away nothing changes.
type follower struct {
	agent    *agent
	lease    netconf.Lease
	delivery *delivery
	reports  *reporter
	pid1     nodev1connect.InitServiceClient
	// released takes the node out of its cluster.
	released func(context.Context, resetOrder) error

	current atomic.Pointer[machine.Config] // what is stored
	next    chan wanted                    // holds the newest that PID 1 has not got yet
}

// run follows until ctx ends, from the config that is stored on.
func (f *follower) run(ctx context.Context, first wanted) error {
	f.want(first)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.poll(ctx, first) })
	group.Go(func() error { return f.apply(ctx) })
	group.Go(func() error { return f.watchEtcd(ctx) })
	return group.Wait()
}

// want hands a config to apply. One that waits there is replaced: only poll
// calls it, so there is room then.
func (f *follower) want(w wanted) {
	f.current.Store(w.config)
	select {
	case <-f.next:
	default:
	}
	f.next <- w
}

// poll acknowledges what is stored and asks for what comes next.
func (f *follower) poll(ctx context.Context, have wanted) error {
	for ctx.Err() == nil {
		if err := f.delivery.acknowledge(ctx, have.digest()); err != nil {
			return err
		}
		next, err := f.await(ctx, have)
		if err != nil {
			return err
		}
		f.agent.console.say("a new config was delivered")
		f.want(next)
		have = next
	}
	return nil
}

// polling is how the boot service is asked for another config: each call blocks
// there for 30 s, or until there is one.
var polling = attempts{deadline: 45 * time.Second, first: time.Second, most: 30 * time.Second}

// await returns the next config once it is stored. Failures are logged and not
// on the console: the node does not need the boot service.
func (f *follower) await(ctx context.Context, have wanted) (wanted, error) {
	log, pause := f.agent.console.log, polling.first
	for ctx.Err() == nil {
		next, err := f.ask(ctx, have)
		var gone *releasedError
		switch {
		case errors.As(err, &gone):
			err = f.released(ctx, gone.order)
		case err == nil && next != nil:
			f.reports.problem("")
			return *next, nil
		}
		if err == nil {
			pause = polling.first
		} else if ctx.Err() == nil {
			pause = min(2*pause, polling.most)
			log.Warn("the boot service's next config", "error", err, "again", pause.String())
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return wanted{}, ctx.Err()
}

// releasedError says that no cluster has this machine any more, and how it is to
// reset itself: by force though etcd loses its quorum.
type releasedError struct{ order resetOrder }

func (*releasedError) Error() string { return "the cluster let this machine go" }

// releaseOf reads it from the boot service's answer.
func releaseOf(answer *bootv1.FetchConfigResponse) error {
	how, err := wipe.Parse(answer.GetWipe())
	if err != nil {
		return fmt.Errorf("the boot service lets this machine go: %w", err)
	}
	return &releasedError{resetOrder{force: answer.GetByForce(), wipe: how}}
}

// ask asks once. It returns nil when there is nothing new.
func (f *follower) ask(ctx context.Context, have wanted) (*wanted, error) {
	ctx, cancel := context.WithTimeout(ctx, polling.deadline)
	defer cancel()
	answer, err := f.delivery.client.FetchConfig(ctx, connect.NewRequest(&bootv1.FetchConfigRequest{Have: have.digest()}))
	switch {
	case err != nil:
		return nil, fmt.Errorf("fetch config: %w", err)
	case answer.Msg.Released:
		return nil, releaseOf(answer.Msg)
	case answer.Msg.Unchanged, len(answer.Msg.Config) == 0, string(answer.Msg.Config) == string(have.data):
		return nil, nil
	}
	config, err := f.delivery.accept(answer.Msg, have.config)
	if err != nil {
		return nil, err
	}
	return &wanted{answer.Msg.Config, config}, nil
}

// applying is how PID 1 is asked to make the node be what its config says. It
// may have to stop programs first, one after the other.
var applying = attempts{deadline: 3 * time.Minute, first: 250 * time.Millisecond, most: 5 * time.Second}

// apply hands configs to PID 1, which takes the same again as no change.
func (f *follower) apply(ctx context.Context) error {
	w, err := f.following(ctx)
	for first := true; err == nil; first = false {
		err = f.agent.console.until(ctx, applying, "PID 1 to apply the config", func(ctx context.Context) error {
			select {
			case w = <-f.next:
			default:
			}
			err := f.applyOnce(ctx, w)
			if err != nil {
				f.reports.problem("PID 1 to apply the config: " + err.Error())
			}
			return err
		})
		if err == nil {
			f.reports.problem("")
			w, err = f.applied(ctx, w, first)
		}
	}
	return err
}

// following is the next config that PID 1 is to get.
func (f *follower) following(ctx context.Context) (w wanted, err error) {
	select {
	case <-ctx.Done():
		return w, ctx.Err()
	case w = <-f.next:
		return w, nil
	}
}

// applied reports that PID 1 runs a config, once that is so in all that others
// rely on, and returns the next config. Two things rest on it. The next control
// plane gets its changed config: what this one restarted must be back. And the
// boot service takes an old encryption key away when it has heard this of all
// control planes, and an old CA when it has of all machines.
func (f *follower) applied(ctx context.Context, w wanted, first bool) (wanted, error) {
	waiting, stop := context.WithCancel(ctx)
	var report sync.WaitGroup
	report.Go(func() {
		if !first {
			f.back(waiting, w.config)
		}
		if f.replaced(waiting, w.config) == nil {
			f.reports.applied(w.digest())
		}
	})
	defer report.Wait()
	defer stop()
	return f.following(ctx)
}

// returning is how long units may take to be back. One that is not by then is
// ill, and the other machines' configs may be what heals it.
const returning = 3 * time.Minute

// back waits until a machine's shared units are ready, so that they restart on one
// machine after the other.
func (f *follower) back(ctx context.Context, config *machine.Config) {
	names := sharedUnits(config)
	ctx, cancel := context.WithTimeout(ctx, returning)
	defer cancel()
	what := strings.Join(names, ", ") + " after a changed config"
	_ = f.agent.console.until(ctx, watching, what, func(ctx context.Context) error { return unitsReady(ctx, f.pid1, names...) })
}

const (
	// secretsUnit is there while the encryption key is replaced, and done when the
	// API server has the keys and, if the config says so, all Secrets are rewritten.
	secretsUnit = "secrets"
	// certificatesUnit is ready when the node has a certificate of the CA that signs now.
	certificatesUnit = "certificates"
)

// replaced waits, for as long as it takes, until the machine needs nothing of what
// the boot service takes away when it hears so: the old encryption key or, on a
// worker, the old CA. A control plane signs its certificates itself.
func (f *follower) replaced(ctx context.Context, config *machine.Config) error {
	var names []string
	if config.ReplacesEncryptionKey() {
		names = append(names, secretsUnit)
	}
	if config.Role == machine.Worker {
		names = append(names, certificatesUnit)
	}
	what := strings.Join(names, ", ") + " to have replaced what is old"
	return f.agent.console.until(ctx, watching, what, func(ctx context.Context) error { return unitsReady(ctx, f.pid1, names...) })
}

// unitsReady waits until all named units are ready, or done. What PID 1 tells
// begins with how they are now, after the config was applied.
func unitsReady(ctx context.Context, pid1 nodev1connect.InitServiceClient, names ...string) error {
	missing := map[string]bool{}
	for _, name := range names {
		missing[name] = true
	}
	if len(missing) == 0 {
		return nil
	}
	stream, err := pid1.WatchUnits(ctx, connect.NewRequest(&nodev1.WatchUnitsRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		u := stream.Msg()
		if u.State == string(supervise.Done) || u.State == string(supervise.Ready) {
			delete(missing, u.Name)
		}
		if len(missing) == 0 {
			return nil
		}
	}
	return errors.Join(errEnded, stream.Err())
}

func (f *follower) applyOnce(ctx context.Context, w wanted) error {
	cert, err := f.agent.store.load(certFile)
	if err != nil {
		return err
	}
	key, err := f.agent.store.load(keyFile)
	if err != nil {
		return err
	}
	_, err = f.pid1.Apply(ctx, connect.NewRequest(&nodev1.ApplyRequest{
		Config: w.data, Address: f.lease.Address.Addr().String(), Link: f.lease.Link, Certificate: cert, Key: key,
		Nameservers: addresses(f.lease.DNS),
	}))
	return err
}
