package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	initapi "slipway/nodeinit/api"
)

// bootSocket is the Unix socket, below the runtime directory, where the agent
// passes calls on to the boot service, for units that have no certificate of
// their own to ask with.
const bootSocket = "boot.sock"

// bootRelay is the boot service as the machine's other units may use it: with
// the machine's certificate, and only for what etcd's start needs. All other
// calls are the agent's own and answer UNIMPLEMENTED.
type bootRelay struct {
	bootv1connect.UnimplementedMachineServiceHandler
	to bootv1connect.MachineServiceClient
}

// RedeemBootstrap is passed on.
func (r bootRelay) RedeemBootstrap(ctx context.Context, request *connect.Request[bootv1.RedeemBootstrapRequest]) (*connect.Response[bootv1.RedeemBootstrapResponse], error) {
	answer, err := r.to.RedeemBootstrap(ctx, connect.NewRequest(request.Msg))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer.Msg), nil
}

// FetchSnapshot is passed on.
func (r bootRelay) FetchSnapshot(ctx context.Context, request *connect.Request[bootv1.FetchSnapshotRequest], out *connect.ServerStream[bootv1.SnapshotChunk]) error {
	in, err := r.to.FetchSnapshot(ctx, connect.NewRequest(request.Msg))
	return relay(in, err, out)
}

// relay passes a stream on until it ends.
func relay[M any](in *connect.ServerStreamForClient[M], err error, out *connect.ServerStream[M]) error {
	if err != nil {
		return err
	}
	defer in.Close()
	for in.Receive() {
		if err := out.Send(in.Msg()); err != nil {
			return err
		}
	}
	return in.Err()
}

// serve answers on the Unix socket at path until ctx ends.
func (r bootRelay) serve(ctx context.Context, path string, log *slog.Logger) error {
	listener, err := initapi.Listen(path)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(bootv1connect.NewMachineServiceHandler(r, connect.WithReadMaxBytes(64<<10)))
	server := &http.Server{
		Handler:           mux,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", path, err)
	}
	return nil
}
