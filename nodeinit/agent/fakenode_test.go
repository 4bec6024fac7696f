package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"connectrpc.com/connect"

	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/netconf"
	"slipway/nodeinit/supervise"
)

// pid1 is a PID 1 by hand: it takes a config and shows the units it is given.
type pid1 struct {
	nodev1connect.UnimplementedNodeServiceHandler
	applied chan *nodev1.ApplyRequest
	units   chan *nodev1.Unit
	failure atomic.Value // string: why it cannot apply
	reboots chan bool    // power off
	wipes   chan string  // of those reboots

	prepared   atomic.Int32  // how often it was told to prepare
	configs    atomic.Int32  // it was given so far
	restarting atomic.Bool   // units are not ready after another config
	hangUp     chan struct{} // ends one stream
}

func (p *pid1) Reboot(_ context.Context, r *connect.Request[nodev1.RebootRequest]) (*connect.Response[nodev1.RebootResponse], error) {
	p.wipes <- r.Msg.Wipe
	p.reboots <- r.Msg.PowerOff
	return connect.NewResponse(&nodev1.RebootResponse{}), nil
}

// take waits for the next config that PID 1 is given.
func (p *pid1) take(t *testing.T) *nodev1.ApplyRequest {
	t.Helper()
	select {
	case r := <-p.applied:
		return r
	case <-time.After(patience):
		t.Fatal("PID 1 was given no config")
		return nil
	}
}

func (p *pid1) fail(why string) { p.failure.Store(why) }

func newPID1(t *testing.T, socket string) *pid1 {
	t.Helper()
	p := &pid1{applied: make(chan *nodev1.ApplyRequest, 8), units: make(chan *nodev1.Unit), hangUp: make(chan struct{}), reboots: make(chan bool, 8), wipes: make(chan string, 8)}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewInitServiceHandler(p))
	mux.Handle(nodev1connect.NewNodeServiceHandler(p))
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { _ = server.Close() })
	return p
}

func (p *pid1) Apply(_ context.Context, r *connect.Request[nodev1.ApplyRequest]) (*connect.Response[nodev1.ApplyResponse], error) {
	p.configs.Add(1)
	p.applied <- r.Msg
	if why, _ := p.failure.Load().(string); why != "" {
		return nil, connect.NewError(connect.CodeInternal, errors.New(why))
	}
	return connect.NewResponse(&nodev1.ApplyResponse{}), nil
}

func (p *pid1) Prepare(context.Context, *connect.Request[nodev1.PrepareRequest]) (*connect.Response[nodev1.PrepareResponse], error) {
	p.prepared.Add(1)
	return connect.NewResponse(&nodev1.PrepareResponse{Units: []string{"containerd", "images"}}), nil
}

// WatchUnits begins with what is ready by the time that the machine has had a
// second config, unless the test says that it is not.
func (p *pid1) WatchUnits(ctx context.Context, _ *connect.Request[nodev1.WatchUnitsRequest], out *connect.ServerStream[nodev1.Unit]) error {
	if p.configs.Load() > 1 && !p.restarting.Load() {
		for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
			if err := out.Send(&nodev1.Unit{Name: name, State: "ready"}); err != nil {
				return err
			}
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.hangUp:
			return nil
		case u := <-p.units:
			if err := out.Send(u); err != nil {
				return err
			}
		}
	}
}

func (p *pid1) Status(context.Context, *connect.Request[nodev1.StatusRequest]) (*connect.Response[nodev1.StatusResponse], error) {
	return connect.NewResponse(&nodev1.StatusResponse{Hostname: "demo-cp-1"}), nil
}

func (p *pid1) Logs(_ context.Context, r *connect.Request[nodev1.LogsRequest], out *connect.ServerStream[nodev1.LogLine]) error {
	return out.Send(&nodev1.LogLine{Text: "a line of " + r.Msg.Unit})
}

// screen is a console that a test can read.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// node is an agent under test with the machine around it.
type node struct {
	*agent
	boot    *bootService
	screen  *screen
	pid1    *pid1
	hosts   chan string
	retired chan string
	ahead   atomic.Int64 // of the true time is its clock, in nanoseconds
}

// freeAddress is one that nobody else takes meanwhile: a port that is free on
// 127.0.0.1 may be given to any connection that another process opens.
func freeAddress(t *testing.T) string {
	t.Helper()
	host := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254))).String()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newNode makes a machine that was booted by b.
func newNode(t *testing.T, b *bootService) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{boot: b, screen: &screen{}, hosts: make(chan string, 8), retired: make(chan string, 8)}
	n.pid1 = newPID1(t, filepath.Join(dir, "init.sock"))
	server, err := url.Parse("https://" + b.addr)
	if err != nil {
		t.Fatal(err)
	}
	n.agent = &agent{
		args:    Args{Server: server, CA: sha256.Sum256(b.ca.cert.Raw), Machine: "52-54-00-12-34-56"},
		store:   store{dir: filepath.Join(dir, "state")},
		runtime: dir, socket: filepath.Join(dir, "init.sock"), listen: freeAddress(t),
		files:   fstest.MapFS{"proc/cpuinfo": {Data: []byte("processor\t: 0\n")}},
		console: &console{out: n.screen, log: slog.New(slog.DiscardHandler), sinceBoot: sinceBoot},
		again:   time.Millisecond, initStart: 1234 * time.Millisecond,
		clock: clock{sinceBoot: sinceBoot, now: n.now, set: func(now time.Time) error {
			n.setClock(now)
			return nil
		}},
		disk: newFakeDisk(), network: fakeNetwork,
		retire:      func(_ context.Context, c *machine.Config) error { n.retired <- c.Hostname; return nil },
		setHostname: func(name string, _ netip.Addr) error { n.hosts <- name; return nil },
	}
	return n
}

// now is what the machine's clock says.
func (n *node) now() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) }

func (n *node) setClock(now time.Time) { n.ahead.Store(int64(time.Until(now))) }

func fakeNetwork(_ func(what, next string), changed func(netconf.Lease)) supervise.Service {
	return supervise.Func(func(ctx context.Context, ready func()) error {
		changed(netconf.Lease{
			Link: "eth0", Address: netip.MustParsePrefix("127.0.0.1/8"), DNS: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		})
		ready()
		<-ctx.Done()
		return nil
	})
}

// start runs the agent; the returned function stops it and waits for its end.
func (n *node) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		err := n.run(ctx)
		if ctx.Err() == nil {
			n.boot.update(func() { n.boot.ended = fmt.Sprintf("; the agent has ended: %v", err) })
		}
		done <- err
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the agent stopped with %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}
