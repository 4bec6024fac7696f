package client

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/enroll"
)

// renewing is how long a renewal may hold a command up.
const renewing = 5 * time.Second

// trusting is a transport that tells the boot service which CAs a context
// trusts, and hears which ones it is to trust.
type trusting struct {
	to     http.RoundTripper
	mine   string                 // digest
	theirs atomic.Pointer[string] // nil before the first answer
}

func (t *trusting) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(enroll.TrustHeader, t.mine)
	answer, err := t.to.RoundTrip(r)
	if err == nil {
		said := answer.Header.Get(enroll.TrustHeader)
		t.theirs.Store(&said)
	}
	return answer, err
}

// rotated says that the boot service trusts other CAs than the context does, or
// that another one signs.
func (t *trusting) rotated() bool {
	theirs := t.theirs.Load()
	return theirs != nil && *theirs != "" && *theirs != t.mine
}

// renewal renews the certificate of a context file on use: behind the first
// call that the boot service answered, if less than a third of its life is
// left, or if the boot service's CA is being rotated. What fails is logged; the
// next command tries again.
type renewal struct {
	context Context
	trust   *trusting
	client  *Client
	once    sync.Once
}

// wrap is a connect.UnaryInterceptorFunc.
func (r *renewal) wrap(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		answer, err := next(ctx, request)
		if err == nil {
			r.once.Do(func() {
				if err := r.renew(ctx, time.Now()); err != nil {
					slog.Warn("your credentials could not be renewed", "context", r.context.path, "err", err)
				}
			})
		}
		return answer, err
	}
}

func (r *renewal) renew(ctx context.Context, now time.Time) error {
	cert, err := parse([]byte(r.context.Certificate))
	if err != nil || !due(cert, now) && !r.trust.rotated() {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, renewing)
	defer cancel()
	answer, err := r.client.Inventory.RenewCredentials(ctx, connect.NewRequest(&bootv1.RenewCredentialsRequest{}))
	if err != nil {
		return err
	}
	renewed := r.context
	renewed.Certificate = string(answer.Msg.GetCertificate())
	if ca := answer.Msg.GetCa(); len(ca) > 0 {
		renewed.CA = string(ca)
	}
	if _, err := renewed.TLS(ServerName); err != nil {
		return err // it does not fit the key: the old one stays
	}
	return renewed.save(r.context.path)
}

// save replaces the file, whole or not at all. It stays its owner's: a command
// that root runs with somebody's context takes nothing from them.
func (c Context) save(path string) error {
	text, err := c.Encode()
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".context-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	defer os.Remove(temp.Name()) // fails once it has its name
	if info, err := os.Stat(path); err == nil {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			_ = temp.Chown(int(owner.Uid), int(owner.Gid))
		}
	}
	_, err = temp.Write(text)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	return nil
}

func parse(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("read the certificate of the context: not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the context: %w", err)
	}
	return cert, nil
}

// due reports whether less than a third of a certificate's life is left.
func due(cert *x509.Certificate, now time.Time) bool {
	return now.After(cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3))
}
