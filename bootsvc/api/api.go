// Package api is the boot service's API: Protocol Buffers over Connect, TLS 1.3
// only. Who may call what is one table, Access; the caller's role stands in its
// client certificate, which the boot service's CA signed. Machines without a
// certificate may enrol and nothing else.
//
// The handlers translate; what happens is decided in inventory, enroll and
// assign. Package bootsvc runs the server.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/assign"
	"slipway/bootsvc/enroll"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/refusal"
	"slipway/bootsvc/snapshot"
)

// The bounds of what a client may take.
const (
	service        = "api"
	maxMessage     = 1 << 20 // bytes of a request, after decompression
	maxHeader      = 16 << 10
	maxConnections = 4096
	headerTimeout  = 10 * time.Second // the TLS handshake too
	readTimeout    = 30 * time.Second
	writeTimeout   = 90 * time.Second // above fetchWait
	idleTimeout    = 2 * time.Minute
	closeDeadline  = 5 * time.Second
)

// Server serves the API. All fields must be set.
type Server struct {
	Listen    netip.AddrPort
	Inventory *inventory.Inventory
	Desk      *enroll.Desk
	Office    *assign.Office
	Snapshots *snapshot.Store
	// Take has a snapshot taken: a snapshot.Taker's.
	Take func(context.Context, snapshot.Origin, []snapshot.Member) (snapshot.Snapshot, error)
	// EtcdStatus asks a node how its member of etcd is: snapshot.Nodes does.
	EtcdStatus assign.AskStatus
	// Certificate is what the server shows; it is asked for every handshake,
	// so that it can be renewed. Its chain must have the CA certificate: machines
	// know that by its hash only.
	Certificate func() (*tls.Certificate, error)
	// Image is what the boot service serves.
	Image    *bootv1.GetImageResponse
	Metrics  http.Handler // what /metrics answers to readers
	Refusals *refusal.Recorder
	Log      *slog.Logger
	Now      func() time.Time
}

// Run listens, calls ready, and serves until ctx ends; requests under way then
// have a few seconds. It may be called again after it returned.
func (s *Server) Run(ctx context.Context, ready func()) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", s.Listen.String())
	if err != nil {
		return fmt.Errorf("listen for the API on %s: %w", s.Listen, err)
	}
	return s.Serve(ctx, listener, ready)
}

// Serve is Run on a listener that the caller made; it closes it.
func (s *Server) Serve(ctx context.Context, listener net.Listener, ready func()) error {
	group, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler:           s.Handler(),
		TLSConfig:         s.tls(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends calls that block
		ErrorLog:          slog.NewLogLogger(broken{refusals: s.Refusals}, slog.LevelWarn),
	}
	group.Go(func() error {
		err := server.ServeTLS(netutil.LimitListener(listener, maxConnections), "", "")
		if !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the API on %s: %w", s.Listen, err)
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

// tls asks for a client certificate and leaves the verdict to withCaller, which
// can say why it refuses. TLS itself proves that the client has the key.
func (s *Server) tls() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Certificate() },
	}
}

// Handler is the API without its listener.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	options := connect.WithHandlerOptions(
		connect.WithReadMaxBytes(maxMessage),
		connect.WithInterceptors(guard{s, Access()}),
	)
	mux.Handle(bootv1connect.NewEnrollServiceHandler(newEnrollHandler(s), options))
	mux.Handle(bootv1connect.NewMachineServiceHandler(&machineHandler{Server: s}, options))
	mux.Handle(bootv1connect.NewInventoryServiceHandler(&inventoryHandler{s}, options))
	mux.Handle(bootv1connect.NewClusterServiceHandler(&clusterHandler{Server: s}, options))
	mux.Handle(bootv1connect.NewAuthorityServiceHandler(&authorityHandler{s}, options))
	mux.Handle("GET /metrics", s.readersOnly(s.Metrics))
	return s.withCaller(withDeadlines(mux))
}

// broken turns net/http's own log lines, one per failed handshake, into refusals.
type broken struct{ refusals *refusal.Recorder }

func (broken) Enabled(context.Context, slog.Level) bool { return true }
func (b broken) WithAttrs([]slog.Attr) slog.Handler     { return b }
func (b broken) WithGroup(string) slog.Handler          { return b }
func (b broken) Handle(_ context.Context, r slog.Record) error {
	source, problem := handshake(r.Message)
	if problem != "EOF" { // somebody looked whether the port is open
		b.refusals.Refuse(service, source, "broken connection", "error", problem)
	}
	return nil
}

// handshake takes net/http's line apart:
// "http: TLS handshake error from 10.0.0.7:40000: EOF".
func handshake(line string) (source, problem string) {
	_, rest, found := strings.Cut(line, "handshake error from ")
	address, problem, split := strings.Cut(rest, ": ")
	remote, err := netip.ParseAddrPort(address)
	if !found || !split || err != nil {
		return "unknown", line
	}
	return remote.Addr().String(), problem
}
