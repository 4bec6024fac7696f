// Package api is PID 1's side of the node's API: NodeService and InitService,
// served on a Unix socket that only root can open. The node agent is its
// client; it checks who may ask what, and passes on the rest. The contract is
// nodev1/node.proto.
package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"connectrpc.com/connect"

	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/logring"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// Socket is where PID 1 serves.
const Socket = "/run/slipway/init.sock"

// Server answers for PID 1. All fields are needed.
type Server struct {
	nodev1connect.UnimplementedNodeServiceHandler // Reset is the agent's

	Units   *supervise.Supervisor
	Rings   *logring.Logs
	Version string // Slipway's

	// Plan says what a config comes to: the files to write, the units to run
	// beside Base. It may be called with the same config again.
	Plan func(*machine.Config, machine.Identity) ([]proc.File, []supervise.Unit, error)
	// Base are the units that run without a config.
	Base []supervise.Unit
	// Common is what every node comes to, whatever its config: a part of what
	// Plan says, and perhaps units that only help until then.
	Common func() ([]proc.File, []supervise.Unit, error)
	// Runner adopts the planned units.
	Runner proc.Runner
	// Shutdown begins a shutdown as it is asked for; it does not wait for its
	// end. An error says that it did not begin.
	Shutdown func(*nodev1.RebootRequest) error

	System System // where the kernel tells of itself

	mu      sync.Mutex // held while a config is applied
	applied *nodev1.ApplyRequest
	config  *machine.Config // nil: none yet
}

// Serve serves on the Unix socket until ctx is done. It is a supervise.Func
// once it has its path.
func (s *Server) Serve(ctx context.Context, path string, ready func()) error {
	listener, err := Listen(path)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewNodeServiceHandler(s))
	mux.Handle(nodev1connect.NewInitServiceHandler(s, connect.WithReadMaxBytes(4<<20)))
	server := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	ready()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", path, err)
	}
	return nil
}

// Listen makes a Unix socket so that nobody but root ever may connect. One that
// is there already is replaced: its server is gone.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	temp := path + ".new"
	os.Remove(temp)
	listener, err := net.Listen("unix", temp)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("guard the socket: %w", err), listener.Close())
	}
	return listener, nil
}

// Reboot begins a shutdown and answers.
func (s *Server) Reboot(_ context.Context, request *connect.Request[nodev1.RebootRequest]) (*connect.Response[nodev1.RebootResponse], error) {
	if err := s.Shutdown(request.Msg); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(&nodev1.RebootResponse{}), nil
}
