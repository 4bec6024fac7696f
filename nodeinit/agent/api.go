package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// api is the node's API for people: it checks who asks and passes the call on
// to PID 1, or to the unit etcd-member.
type api struct {
	store   store
	init    nodev1connect.NodeServiceClient
	etcd    nodev1connect.EtcdServiceClient // of the unit etcd-member
	reset   *resetter
	upgrade *upgrader
	health  *health // nil: the machine runs from RAM
	log     *slog.Logger
}

// stopping is how long calls may take to end when the agent stops.
const stopping = 2 * time.Second

// serve answers on l until ctx ends.
func (a *api) serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:   a.handler(),
		TLSConfig: a.tls(),
		ErrorLog:  slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		// Logs and Dmesg may stream for days: only headers have a deadline.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(l, "", "") }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the node API on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopping)
	defer cancel()
	if server.Shutdown(ending) != nil {
		_ = server.Close()
	}
	<-done
	return nil
}

// tls asks for a client certificate but leaves the verdict to the handler,
// which can say why it refuses.
func (a *api) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.store.certificate()
		},
	}
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	path, service := nodev1connect.NewNodeServiceHandler(forward{to: a.init, reset: a.reset, upgrade: a.upgrade, health: a.health}, connect.WithReadMaxBytes(64<<10))
	mux.Handle(path, service)
	mux.Handle(nodev1connect.NewEtcdServiceHandler(etcdForward{to: a.etcd}, connect.WithReadMaxBytes(64<<10)))
	return a.guard(mux)
}

// guard lets authorized calls pass and refuses others in the protocol's own words.
func (a *api) guard(next http.Handler) http.Handler {
	refusal := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		person, err := a.check(r)
		if err == nil {
			a.log.Info("call", "procedure", r.URL.Path, "person", person, "from", r.RemoteAddr)
			next.ServeHTTP(w, r)
			return
		}
		a.log.Warn("refused", "procedure", r.URL.Path, "person", person, "from", r.RemoteAddr, "error", err)
		code := connect.CodeUnauthenticated
		if errors.Is(err, errRole) {
			code = connect.CodePermissionDenied
		}
		if refusal.IsSupported(r) {
			_ = refusal.Write(w, r, connect.NewError(code, err))
			return
		}
		http.Error(w, err.Error(), http.StatusForbidden)
	})
}

func (a *api) check(r *http.Request) (string, error) {
	cas, err := a.store.authorities()
	if err != nil {
		return "", err
	}
	return authorize(r.TLS.PeerCertificates, cas, r.URL.Path)
}

// forward is the NodeService of PID 1, passed on, and what the agent does itself.
type forward struct {
	nodev1connect.UnimplementedNodeServiceHandler
	to      nodev1connect.NodeServiceClient
	reset   *resetter
	upgrade *upgrader
	health  *health
}

// Status adds to what PID 1 tells how the disk is.
func (f forward) Status(ctx context.Context, r *connect.Request[nodev1.StatusRequest]) (*connect.Response[nodev1.StatusResponse], error) {
	answer, err := f.to.Status(ctx, connect.NewRequest(r.Msg))
	if err == nil && f.health != nil {
		answer.Msg.SystemDisk = f.health.status()
	}
	return answer, err
}

// Reboot wipes nothing, whatever the caller says: that is a reset's.
func (f forward) Reboot(ctx context.Context, r *connect.Request[nodev1.RebootRequest]) (*connect.Response[nodev1.RebootResponse], error) {
	request := &nodev1.RebootRequest{PowerOff: r.Msg.PowerOff, Kexec: r.Msg.Kexec && !r.Msg.PowerOff}
	if request.Kexec {
		if err := f.upgrade.loadNext(); err != nil {
			return nil, connect.NewError(connect.CodeFailedPrecondition, err)
		}
	}
	return f.to.Reboot(ctx, connect.NewRequest(request))
}

func (f forward) Logs(ctx context.Context, r *connect.Request[nodev1.LogsRequest], out *connect.ServerStream[nodev1.LogLine]) error {
	in, err := f.to.Logs(ctx, connect.NewRequest(r.Msg))
	return relay(in, err, out)
}

func (f forward) Dmesg(ctx context.Context, r *connect.Request[nodev1.DmesgRequest], out *connect.ServerStream[nodev1.LogLine]) error {
	in, err := f.to.Dmesg(ctx, connect.NewRequest(r.Msg))
	return relay(in, err, out)
}
