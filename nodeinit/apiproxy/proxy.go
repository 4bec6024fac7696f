package apiproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"slipway/nodeinit/proc"
)

const (
	// interval is between two probes of an upstream and two looks at the File.
	interval = 2 * time.Second
	// unused is how many times as long a healthy upstream is left alone that has
	// no connection of this node, until it gets one. Each node asks each API
	// server, and whether one is there shows when it is connected to.
	unused = 5
	// maxConns is how many connections there may be. A node has some twenty.
	maxConns = 1024
)

// Proxy is the balancer. Its goroutines are those of Run.
type Proxy struct {
	log      *slog.Logger
	read     func() ([]byte, error) // the File
	prober   Prober
	seed     uint64
	interval time.Duration
	maxConns int
	complain rate.Sometimes // about connections that cannot be served

	data []byte // the File as it was read last; reload's own

	mu        sync.Mutex // guards what follows
	upstreams []*upstream
	conns     int // of all upstreams, and those still being placed
}

// upstream is an API server that is in the File.
type upstream struct {
	addr   string
	own    bool
	stop   context.CancelFunc // ends its probes
	used   chan struct{}      // has a value after its first connection, or first again
	health health
	links  map[*link]struct{}
	gone   bool // no longer in the File
}

// New returns a balancer that is told its API servers by read, asks them by
// prober, and breaks ties with seed.
func New(log *slog.Logger, read func() ([]byte, error), prober Prober, seed uint64) *Proxy {
	return &Proxy{
		log: log, read: read, prober: prober, seed: seed, interval: interval, maxConns: maxConns,
		complain: rate.Sometimes{First: 1, Interval: 10 * time.Second},
	}
}

// Run serves the listener, which it closes, until ctx ends. It fails at once if
// there is no valid File at the start; a bad one later leaves all as it was.
func (p *Proxy) Run(ctx context.Context, listener *net.TCPListener) error {
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	defer listener.Close()
	if err := p.reload(ctx, group); err != nil {
		return fmt.Errorf("read %s: %w", Path, err)
	}
	group.Go(func() error { return p.watch(ctx, group) })
	group.Go(func() error { return p.accept(ctx, group, listener) })
	return group.Wait()
}

// watch follows the File.
func (p *Proxy) watch(ctx context.Context, group *errgroup.Group) error {
	ticker := time.NewTicker(p.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			p.replace(File{})
			return nil
		case <-ticker.C:
			if err := p.reload(ctx, group); err != nil {
				p.log.Error("the upstreams stay as they were", "file", Path, "err", err)
			}
		}
	}
}

// reload takes over the File if it has changed. A bad one is an error once.
func (p *Proxy) reload(ctx context.Context, group *errgroup.Group) error {
	data, err := p.read()
	if err != nil {
		data = nil
	}
	if p.data != nil && bytes.Equal(data, p.data) {
		return nil
	}
	p.data = append([]byte{}, data...)
	if err != nil {
		return err
	}
	file, err := parse(data)
	if err != nil {
		return err
	}
	p.log.Info("upstreams", "own", file.Own, "others", file.Others)
	for _, u := range p.replace(file) {
		ctx, cancel := context.WithCancel(ctx)
		u.stop = cancel
		group.Go(func() error { p.probe(ctx, u); return nil })
	}
	return nil
}

// replace makes those of the File the upstreams, keeps what is there already,
// cuts the connections of those that are gone, and returns the new ones.
func (p *Proxy) replace(file File) (added []*upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := map[string]*upstream{}
	for _, u := range p.upstreams {
		known[u.addr] = u
	}
	p.upstreams = nil
	for _, addr := range file.all() {
		u := known[addr]
		if u == nil {
			u = &upstream{addr: addr, used: make(chan struct{}, 1), health: newHealth(), links: map[*link]struct{}{}}
			added = append(added, u)
		}
		delete(known, addr)
		u.own = addr == file.Own
		p.upstreams = append(p.upstreams, u)
	}
	for _, u := range known {
		u.gone = true
		u.stop()
		u.cut()
	}
	return added
}

// probe asks an upstream how it is until it is gone.
func (p *Proxy) probe(ctx context.Context, u *upstream) {
	ask, end := p.prober(u.addr)
	defer end()
	for {
		began := time.Now()
		result := ask(ctx)
		if ctx.Err() != nil {
			return
		}
		p.observe(u, result)
		pause(ctx, u.used, p.rest(u, result, time.Since(began)))
	}
}

// rest is how long an upstream is left alone after it was asked. One that cannot
// be reached is not disturbed by the next try, and one that does not answer in
// time is to be given up some time.
func (p *Proxy) rest(u *upstream, r Result, took time.Duration) time.Duration {
	switch r {
	case OK, NotReady:
		if p.idle(u) {
			return unused * p.interval
		}
		return proc.Rest(p.interval, took)
	case Slow:
		return max(p.interval-took, took/2)
	}
	return max(p.interval-took, p.interval/10)
}

// idle says whether an upstream is healthy and of no use to this node at the moment.
func (p *Proxy) idle(u *upstream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return u.health.level == Healthy && !u.own && len(u.links) == 0
}

// observe notes how an upstream is, and cuts the connections that are better
// off elsewhere.
func (p *Proxy) observe(u *upstream, r Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := u.health.level
	u.health = u.health.observe(r)
	if before == u.health.level {
		return
	}
	p.log.Info("upstream is "+u.health.level.String(), "upstream", u.addr, "before", before.String(), "connections", len(u.links))
	all := p.views()
	for i, u := range p.upstreams {
		if mustMove(all[i], all) {
			u.cut()
		}
	}
}

// views are the upstreams as choose wants them. The caller holds mu.
func (p *Proxy) views() []view {
	var views []view
	for _, u := range p.upstreams {
		views = append(views, view{addr: u.addr, own: u.own, level: u.health.level, conns: len(u.links), upstream: u})
	}
	return views
}

func (u *upstream) cut() {
	for l := range u.links {
		l.close()
	}
}

// accept takes connections until the listener is closed.
func (p *Proxy) accept(ctx context.Context, group *errgroup.Group, listener *net.TCPListener) error {
	for {
		client, err := listener.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS):
			p.complain.Do(func() { p.log.Warn("cannot take connections", "err", err) })
			pause(ctx, nil, p.interval/10)
		case errors.Is(err, syscall.ECONNABORTED):
		case err != nil:
			return err
		default:
			group.Go(func() error { p.serve(ctx, client); return nil })
		}
	}
}

// pause ends early when there is something on enough, which may be nil.
func pause(ctx context.Context, enough <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-enough:
	case <-timer.C:
	}
}

// serve carries one connection to its end.
func (p *Proxy) serve(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	if !p.enter() {
		p.complain.Do(func() { p.log.Warn("connection refused: there are too many", "most", p.maxConns) })
		return
	}
	defer p.leave()
	u, l, err := p.place(ctx, client)
	if err != nil {
		p.complain.Do(func() { p.log.Warn("no API server takes connections", "err", err) })
		return
	}
	defer p.detach(u, l)
	l.carry()
}

func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns >= p.maxConns {
		return false
	}
	p.conns++
	return true
}

func (p *Proxy) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns--
}

// place connects to the first upstream that takes the connection. The client
// sees nothing of those that do not.
func (p *Proxy) place(ctx context.Context, client *net.TCPConn) (*upstream, *link, error) {
	p.mu.Lock()
	order := choose(p.views(), p.seed)
	p.mu.Unlock()
	var errs []error
	for _, v := range order {
		server, err := dial(ctx, v.addr)
		if err == nil {
			if l := p.attach(v.upstream, client, server); l != nil {
				return v.upstream, l, nil
			}
			continue
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		errs = append(errs, err)
		p.observe(v.upstream, dialResult(err))
	}
	return nil, nil, errors.Join(errs...)
}

func dialResult(err error) Result {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return Refused
	}
	return Silent
}

// attach is nil if the upstream has gone meanwhile.
func (p *Proxy) attach(u *upstream, client, server *net.TCPConn) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.gone {
		_ = server.Close()
		return nil
	}
	l := &link{client: client, server: server}
	if len(u.links) == 0 {
		select {
		case u.used <- struct{}{}:
		default: // its prober has not even taken note of the last time
		}
	}
	u.links[l] = struct{}{}
	return l
}

func (p *Proxy) detach(u *upstream, l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(u.links, l)
}
