package member

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
)

// bootService is the boot service, by way of the node agent, which has the
// machine's certificate.
func (s *Service) bootService() bootv1connect.MachineServiceClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", s.Paths.Boot)
	}
	return bootv1connect.NewMachineServiceClient(&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}, "http://boot")
}

// redeem asks the boot service for leave to begin, or tells it that it is done.
func (s *Service) redeem(ctx context.Context, token string, done bool) error {
	once, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	_, err := s.bootService().RedeemBootstrap(once, connect.NewRequest(&bootv1.RedeemBootstrapRequest{Token: token, Done: done}))
	if connect.CodeOf(err) == connect.CodeFailedPrecondition {
		return refused{err}
	}
	return err
}

// refused is the boot service's no.
type refused struct{ error }

// fetchSnapshot writes a snapshot to a file, and fails unless it is the one
// that is named, to the last byte.
func (s *Service) fetchSnapshot(ctx context.Context, sum, path string) error {
	want, err := hex.DecodeString(sum)
	if err != nil {
		return fmt.Errorf("read the snapshot's SHA-256: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	stream, err := s.bootService().FetchSnapshot(ctx, connect.NewRequest(&bootv1.FetchSnapshotRequest{Sha256: want}))
	if err != nil {
		return err
	}
	defer stream.Close()
	hash := sha256.New()
	for stream.Receive() {
		hash.Write(stream.Msg().Data)
		if _, err := f.Write(stream.Msg().Data); err != nil {
			return fmt.Errorf("keep the snapshot: %w", err)
		}
	}
	if err := stream.Err(); err != nil {
		return fmt.Errorf("fetch the snapshot: %w", err)
	}
	if got := hash.Sum(nil); string(got) != string(want) {
		return fmt.Errorf("the snapshot that came is not the one to restore: SHA-256 %x, not %s; nothing was changed; is it whole on the boot service?", got, sum)
	}
	return errors.Join(f.Sync(), f.Close())
}
