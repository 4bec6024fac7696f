package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
)

// RedeemBootstrap takes a token once done, and only of a machine.
func (b *bootService) RedeemBootstrap(_ context.Context, r *connect.Request[bootv1.RedeemBootstrapRequest]) (*connect.Response[bootv1.RedeemBootstrapResponse], error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.redeemed {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the token was used"))
	}
	b.redeemed = r.Msg.Done
	return connect.NewResponse(&bootv1.RedeemBootstrapResponse{}), nil
}

// FetchSnapshot sends the snapshot in two pieces.
func (b *bootService) FetchSnapshot(_ context.Context, r *connect.Request[bootv1.FetchSnapshotRequest], out *connect.ServerStream[bootv1.SnapshotChunk]) error {
	sum := sha256.Sum256(b.snapshot)
	if !bytes.Equal(sum[:], r.Msg.Sha256) {
		return connect.NewError(connect.CodeNotFound, errors.New("no such snapshot"))
	}
	half := len(b.snapshot) / 2
	return errors.Join(
		out.Send(&bootv1.SnapshotChunk{Data: b.snapshot[:half]}),
		out.Send(&bootv1.SnapshotChunk{Data: b.snapshot[half:]}),
	)
}

// TestRelay: units of the machine reach the boot service through the agent,
// for the start of etcd and for nothing else.
func TestRelay(t *testing.T) {
	b := newBootService(t)
	b.approved, b.snapshot = true, []byte("what etcd held")
	n := newNode(t, b)
	n.start(t)
	b.await("a fetch", func() bool { return b.fetches > 0 })
	path := filepath.Join(n.runtime, bootSocket)
	if !eventually(func() bool { _, err := os.Stat(path); return err == nil }) {
		t.Fatal("no socket")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v, want mode 0600", info.Mode(), err)
	}
	transport := unixTransport(path)
	t.Cleanup(transport.CloseIdleConnections)
	client := bootv1connect.NewMachineServiceClient(&http.Client{Transport: transport}, "http://boot")

	_, err := client.RedeemBootstrap(t.Context(), connect.NewRequest(&bootv1.RedeemBootstrapRequest{Token: "t", Done: true}))
	checkCode(t, "RedeemBootstrap", err, 0, "")
	_, err = client.RedeemBootstrap(t.Context(), connect.NewRequest(&bootv1.RedeemBootstrapRequest{Token: "t"}))
	checkCode(t, "RedeemBootstrap again", err, connect.CodeFailedPrecondition, "the token was used")
	_, err = client.AckConfig(t.Context(), connect.NewRequest(&bootv1.AckConfigRequest{}))
	checkCode(t, "AckConfig", err, connect.CodeUnimplemented, "")

	sum := sha256.Sum256(b.snapshot)
	got, err := readSnapshot(t, client, sum[:])
	if err != nil || !bytes.Equal(got, b.snapshot) {
		t.Errorf("FetchSnapshot: %q, %v", got, err)
	}
	_, err = readSnapshot(t, client, nil)
	checkCode(t, "FetchSnapshot", err, connect.CodeNotFound, "no such snapshot")
}

func readSnapshot(t *testing.T, client bootv1connect.MachineServiceClient, sum []byte) (data []byte, err error) {
	t.Helper()
	stream, err := client.FetchSnapshot(t.Context(), connect.NewRequest(&bootv1.FetchSnapshotRequest{Sha256: sum}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		data = append(data, stream.Msg().Data...)
	}
	return data, stream.Err()
}
