// Package httpd serves the public boot artifacts by HTTP: each machine's iPXE
// script, the kernel, the initramfs, the loaders. It serves a fixed table of
// files and no directory, to anyone who asks, and nothing secret; enrolment
// and the API are package api's. Package bootsvc runs it.
package httpd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/refusal"
	"slipway/bootsvc/timeline"
)

// File is one artifact on disk. It must not change while the server runs.
type File struct {
	Path   string
	SHA256 string // hex, from the image's manifest; the strong ETag
}

// Seams are the server's ways to the rest of the boot service. All must be set.
type Seams struct {
	// Script renders the iPXE script of a machine; nil is one of which
	// nothing is known.
	Script func(ctx context.Context, mac net.HardwareAddr) ([]byte, error)
	// MAC tells whose an address is; nil when it is nobody's.
	MAC      func(netip.Addr) net.HardwareAddr
	Observe  timeline.Observer
	Refusals *refusal.Recorder
	Metrics  prometheus.Registerer
	Log      *slog.Logger
	Now      func() time.Time
}

// Server serves the artifacts of its table.
type Server struct {
	listen netip.AddrPort
	files  map[string]artifact
	Seams
	requests *prometheus.CounterVec
	sent     prometheus.Counter
}

// artifact is a File as it was when the server was made.
type artifact struct {
	File
	info os.FileInfo
}

// What a client may take before it is cut off. Firmware is slow, so these are
// wide; they keep a client from holding a connection for ever.
const (
	service       = "http"
	headerTimeout = 10 * time.Second
	idleTimeout   = 30 * time.Second
	maxHeader     = 16 << 10
	// slowest is the rate, in bytes a second, that an artifact is sent at or given up.
	slowest = 64 << 10
	// How many connections may be open, in all and from one address.
	maxConnections = 4096
	maxPerSource   = 32
	closeDeadline  = 5 * time.Second
)

// New looks at each file of the table, keyed by URL path ("/image/kernel"),
// and returns a server that does not listen yet.
func New(listen netip.AddrPort, files map[string]File, s Seams) (*Server, error) {
	server := &Server{
		listen: listen,
		files:  map[string]artifact{},
		Seams:  s,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_http_requests_total",
			Help: "Requests for boot artifacts, by path (other: not of the table) and status.",
		}, []string{"path", "status"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_http_bytes_total",
			Help: "Bytes of bodies sent.",
		}),
	}
	for path, f := range files {
		info, err := os.Stat(f.Path)
		if err != nil {
			return nil, fmt.Errorf("serve %s: %w", path, err)
		}
		server.files[path] = artifact{f, info}
	}
	s.Metrics.MustRegister(server.requests, server.sent)
	return server, nil
}

// Run listens, calls ready, and serves until the context ends; requests under
// way then have a few seconds. It may be called again after it returned.
func (s *Server) Run(ctx context.Context, ready func()) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", s.listen.String())
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w", s.listen, err)
	}
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(quiet{s}, slog.LevelWarn),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(&limiter{Listener: listener, server: s, open: map[netip.Addr]int{}}); err != http.ErrServerClosed {
			return fmt.Errorf("serve HTTP on %s: %w", s.listen, err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeDeadline)
		defer cancel()
		if server.Shutdown(deadline) != nil {
			server.Close()
		}
		return nil
	})
	ready()
	return group.Wait()
}

// quiet turns net/http's own log lines, one per broken connection, into refusals.
type quiet struct{ *Server }

func (quiet) Enabled(context.Context, slog.Level) bool { return true }
func (q quiet) WithAttrs([]slog.Attr) slog.Handler     { return q }
func (q quiet) WithGroup(string) slog.Handler          { return q }
func (q quiet) Handle(_ context.Context, r slog.Record) error {
	q.Refusals.Refuse(service, "unknown", "broken connection", "error", r.Message)
	return nil
}
