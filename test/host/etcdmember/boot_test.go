package etcdmember

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
)

// bootService is the boot service as machines see it by way of their agents. It
// lets a token be redeemed by one machine, until that one says it is done.
type bootService struct {
	mu        sync.Mutex
	by        map[string]string // token: the machine that redeemed it
	done      map[string]bool
	snapshots map[string][]byte // by SHA-256, hex
	silent    bool
}

func (b *bootService) silence(is bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.silent = is
}

// serve answers on the machine's socket until the test ends.
func (b *bootService) serve(n *node) {
	n.t.Helper()
	os.Remove(n.paths.Boot)
	listener, err := net.Listen("unix", n.paths.Boot)
	must(n.t, err)
	mux := http.NewServeMux()
	mux.Handle(bootv1connect.NewMachineServiceHandler(forMachine{bootService: b, name: n.name + n.addr.String()}))
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	n.t.Cleanup(func() { server.Close() })
}

type forMachine struct {
	bootv1connect.UnimplementedMachineServiceHandler
	*bootService
	name string
}

func (b forMachine) RedeemBootstrap(_ context.Context, request *connect.Request[bootv1.RedeemBootstrapRequest]) (*connect.Response[bootv1.RedeemBootstrapResponse], error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("out for lunch"))
	}
	if b.by == nil {
		b.by, b.done = map[string]string{}, map[string]bool{}
	}
	token := request.Msg.Token
	if by := b.by[token]; by != "" && by != b.name || b.done[token] && !request.Msg.Done {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the token was used"))
	}
	b.by[token], b.done[token] = b.name, b.done[token] || request.Msg.Done
	return connect.NewResponse(&bootv1.RedeemBootstrapResponse{}), nil
}

func (b forMachine) FetchSnapshot(_ context.Context, request *connect.Request[bootv1.FetchSnapshotRequest], out *connect.ServerStream[bootv1.SnapshotChunk]) error {
	b.mu.Lock()
	data := b.snapshots[hex.EncodeToString(request.Msg.Sha256)]
	b.mu.Unlock()
	for len(data) > 0 {
		n := min(len(data), 256<<10)
		if err := out.Send(&bootv1.SnapshotChunk{Data: data[:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func (b *bootService) finished(token string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done[token]
}

func unixTransport(path string) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", path)
	}}
}
