package apiproxy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// apiServer is an upstream that says its address and then repeats what it hears.
type apiServer struct {
	net.Listener
	result atomic.Int32
	probed chan struct{} // gets a value at each probe that somebody waits for
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &apiServer{Listener: listener, probed: make(chan struct{})}
	var group errgroup.Group
	group.Go(func() error { s.run(&group); return nil })
	t.Cleanup(func() { _ = listener.Close(); _ = group.Wait() })
	return s
}

func (s *apiServer) run(group *errgroup.Group) {
	for {
		conn, err := s.Accept()
		if err != nil {
			return
		}
		group.Go(func() error {
			defer conn.Close()
			_, _ = io.WriteString(conn, s.addr()+"\n")
			_, _ = io.Copy(conn, conn)
			_, _ = io.WriteString(conn, "bye\n")
			return nil
		})
	}
}

func (s *apiServer) addr() string { return s.Listener.Addr().String() }

// becomes has the probes come to r, and returns when that has been noticed.
func (s *apiServer) becomes(r Result) {
	s.result.Store(int32(r))
	for range toSlow + 2 {
		<-s.probed
	}
}

// lab is a balancer with its upstreams.
type lab struct {
	t       *testing.T
	addr    string
	mu      sync.Mutex
	file    []byte
	servers map[string]*apiServer
}

// newLab runs a balancer over a control plane's own API server and others.
func newLab(t *testing.T, own *apiServer, others ...*apiServer) *lab {
	t.Helper()
	l := &lab{t: t, servers: map[string]*apiServer{}}
	for _, s := range append([]*apiServer{own}, others...) {
		if s != nil {
			l.servers[s.addr()] = s
		}
	}
	l.tell(own, others...)
	l.run(l.prober)
	if own != nil {
		own.becomes(Result(own.result.Load())) // what follows is about a balancer that knows it
	}
	return l
}

func (l *lab) run(prober Prober) {
	l.t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		l.t.Fatal(err)
	}
	l.addr = listener.Addr().String()
	read := func() ([]byte, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.file, nil
	}
	proxy := New(slog.New(slog.NewTextHandler(l.t.Output(), nil)), read, prober, 1)
	proxy.interval = time.Millisecond
	ctx, cancel := context.WithCancel(l.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- proxy.Run(ctx, listener) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	})
}

// tell changes the File.
func (l *lab) tell(own *apiServer, others ...*apiServer) {
	l.t.Helper()
	file := File{Others: []string{}}
	if own != nil {
		file.Own = own.addr()
	}
	for _, s := range others {
		file.Others = append(file.Others, s.addr())
	}
	data, err := json.Marshal(file)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file = data
}

func (l *lab) prober(addr string) (func(context.Context) Result, func()) {
	s := l.servers[addr]
	return func(context.Context) Result {
		r := Result(s.result.Load())
		select {
		case s.probed <- struct{}{}:
		default:
		}
		return r
	}, func() {}
}

// client is a connection through the balancer.
type client struct {
	*net.TCPConn
	lines    *bufio.Scanner
	upstream string
}

func (l *lab) connect() *client {
	l.t.Helper()
	conn, err := net.Dial("tcp4", l.addr)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // of a test that fails
	c := &client{TCPConn: conn.(*net.TCPConn), lines: bufio.NewScanner(conn)}
	c.upstream = c.line()
	return c
}

// line is the next that arrives; empty when the connection has ended.
func (c *client) line() string {
	if !c.lines.Scan() {
		return ""
	}
	return c.lines.Text()
}

// works says whether the connection carries both ways.
func (c *client) works() bool {
	_, err := io.WriteString(c, "hello\n")
	return err == nil && c.line() == "hello"
}

func TestOwnServerIsPreferred(t *testing.T) {
	own, other := newAPIServer(t), newAPIServer(t)
	l := newLab(t, own, other)
	for range 3 {
		if c := l.connect(); c.upstream != own.addr() || !c.works() {
			t.Errorf("connected to %q, want its own %s", c.upstream, own.addr())
		}
	}
}

// TestUnreadyServerIsLeft: its connections end at once, new ones go elsewhere,
// and come back when it is well again; what is open then stays where it is.
func TestUnreadyServerIsLeft(t *testing.T) {
	own, other := newAPIServer(t), newAPIServer(t)
	l := newLab(t, own, other)
	other.becomes(OK)
	first := l.connect()
	own.becomes(NotReady)
	if got := first.line(); got != "" {
		t.Errorf("the connection goes on: %q", got)
	}
	second := l.connect()
	if second.upstream != other.addr() {
		t.Errorf("connected to %q, want %s", second.upstream, other.addr())
	}
	own.becomes(OK)
	if third := l.connect(); third.upstream != own.addr() {
		t.Errorf("connected to %q, want its own again", third.upstream)
	}
	if !second.works() {
		t.Error("the connection to a healthy server was cut")
	}
}

// TestNobodyIsReady: as without a quorum of etcd. What is open stays open.
func TestNobodyIsReady(t *testing.T) {
	own, other := newAPIServer(t), newAPIServer(t)
	l := newLab(t, own, other)
	c := l.connect()
	other.becomes(NotReady)
	own.becomes(NotReady)
	if !c.works() {
		t.Error("the connection was cut, though no other server is better")
	}
	if c := l.connect(); c.upstream != own.addr() {
		t.Errorf("connected to %q, want its own", c.upstream)
	}
}

// TestServerDies: nothing listens any more, and its probes do not know yet.
func TestServerDies(t *testing.T) {
	dead, alive := newAPIServer(t), newAPIServer(t)
	l := newLab(t, dead, alive)
	_ = dead.Close()
	for range 3 {
		if c := l.connect(); c.upstream != alive.addr() || !c.works() {
			t.Errorf("connected to %q, want %s", c.upstream, alive.addr())
		}
	}
}

func TestAllServersAreGone(t *testing.T) {
	a, b := newAPIServer(t), newAPIServer(t)
	l := newLab(t, nil, a, b)
	_, _ = a.Close(), b.Close()
	if c := l.connect(); c.upstream != "" {
		t.Errorf("connected to %q", c.upstream)
	}
}

func TestChangedFile(t *testing.T) {
	a, b := newAPIServer(t), newAPIServer(t)
	l := newLab(t, a)
	l.servers[b.addr()] = b
	first := l.connect()

	l.tell(nil, a, b)
	b.becomes(OK) // it is asked, so it is known
	if !first.works() {
		t.Error("a new upstream cut the connection to another")
	}
	second := l.connect()
	if second.upstream != b.addr() {
		t.Errorf("connected to %q, want the one with fewer connections", second.upstream)
	}

	l.tell(nil, b)
	if got := first.line(); got != "" {
		t.Errorf("the connection to a server that is gone goes on: %q", got)
	}
	if !second.works() {
		t.Error("the connection to a server that stayed was cut")
	}
}

func TestBadFileChangesNothing(t *testing.T) {
	own := newAPIServer(t)
	l := newLab(t, own)
	c := l.connect()
	l.mu.Lock()
	l.file = []byte("{")
	l.mu.Unlock()
	own.becomes(OK)
	if !c.works() || l.connect().upstream != own.addr() {
		t.Error("a File that cannot be read changed something")
	}
}

func TestNoFileAtTheStart(t *testing.T) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	missing := errors.New("no such file")
	proxy := New(slog.New(slog.DiscardHandler), func() ([]byte, error) { return nil, missing }, nil, 1)
	if err := proxy.Run(t.Context(), listener); !errors.Is(err, missing) {
		t.Errorf("Run: %v", err)
	}
}

// TestHalfClose: the client has said all it has to say, and still hears the rest.
func TestHalfClose(t *testing.T) {
	l := newLab(t, newAPIServer(t))
	c := l.connect()
	if _, err := io.WriteString(c, "last words\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.line() + ", " + c.line() + c.line(); got != "last words, bye" {
		t.Errorf("heard %q", got)
	}
}

func TestTooManyConnections(t *testing.T) {
	own := newAPIServer(t)
	l := &lab{t: t, servers: map[string]*apiServer{own.addr(): own}}
	l.tell(own)
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l.addr = listener.Addr().String()
	proxy := New(slog.New(slog.DiscardHandler), func() ([]byte, error) { return l.file, nil }, l.prober, 1)
	proxy.maxConns = 2
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error { return proxy.Run(ctx, listener) })
	a, b := l.connect(), l.connect()
	if c := l.connect(); c.upstream != "" || !a.works() || !b.works() {
		t.Errorf("a third connection got %q", c.upstream)
	}
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if got := a.line() + b.line(); strings.TrimSpace(got) != "" {
		t.Errorf("after its end: %q", got)
	}
}

// TestRest: a healthy upstream that the node does not use is asked less often; its own, one in
// use and one that is not well are not forgotten.
func TestRest(t *testing.T) {
	p := New(slog.New(slog.DiscardHandler), nil, nil, 0)
	used := map[*link]struct{}{{}: {}}
	for name, test := range map[string]struct {
		u    upstream
		r    Result
		took time.Duration
		want time.Duration
	}{
		"in use":          {upstream{health: health{level: Healthy}, links: used}, OK, 0, interval},
		"in use, busy":    {upstream{health: health{level: Healthy}, links: used}, OK, time.Second, 5 * time.Second},
		"not used":        {upstream{health: health{level: Healthy}}, OK, 0, unused * interval},
		"its own":         {upstream{health: health{level: Healthy}, own: true}, OK, 0, interval},
		"gets well":       {upstream{health: health{level: Dead}}, OK, 0, interval},
		"is not ready":    {upstream{health: health{level: Unready}}, NotReady, 0, interval},
		"does not answer": {upstream{health: health{level: Healthy}, links: used}, Slow, answerWithin, answerWithin / 2},
		"is not there":    {upstream{health: health{level: Healthy}}, Silent, 2 * time.Second, interval / 10},
	} {
		if got := p.rest(&test.u, test.r, test.took); got != test.want {
			t.Errorf("%s: rest %s, want %s", name, got, test.want)
		}
	}
}
