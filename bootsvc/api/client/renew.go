package client

import (
	"context"
	"crypto/tls"
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

// renewal renews the certificate of a context file on use: behind a call that
// the boot service answered, if less than a third of its life is left, or if the
// boot service trusts other CAs than the context does, or another one signs. What
// fails is logged; the next command tries again. Its methods may be called
// concurrently.
type renewal struct {
	now    atomic.Pointer[Context] // as it was renewed last
	theirs atomic.Value            // string: the digest of the CAs that the boot service trusts, as it said last
	client *Client                 // that does not renew

	mu    sync.Mutex
	tried map[string]bool // for which of those a renewal was tried
}

func newRenewal(c Context) *renewal {
	r := &renewal{tried: map[string]bool{}}
	r.now.Store(&c)
	r.theirs.Store("")
	return r
}

// certificate is what a new connection shows.
func (r *renewal) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return r.now.Load().pair()
}

// trusts is the digest of the CAs that the context trusts.
func (r *renewal) trusts() string { return enroll.TrustDigest([]byte(r.now.Load().CA)) }

// telling is a transport that tells the boot service which CAs the context
// trusts, and hears which ones it is to trust.
type telling struct {
	*http.Transport
	renewal *renewal
}

func (t telling) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set(enroll.TrustHeader, t.renewal.trusts())
	answer, err := t.Transport.RoundTrip(request)
	if err == nil {
		t.renewal.theirs.Store(answer.Header.Get(enroll.TrustHeader))
	}
	return answer, err
}

// wrap is a connect.UnaryInterceptorFunc.
func (r *renewal) wrap(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		answer, err := next(ctx, request)
		if err != nil {
			return answer, err
		}
		if err := r.renewOnce(ctx, time.Now()); err != nil {
			slog.Warn("your credentials could not be renewed", "context", r.now.Load().path, "err", err)
		}
		return answer, nil
	}
}

// renewOnce renews if it is time, and tries so once for each state of the boot
// service's CAs.
func (r *renewal) renewOnce(ctx context.Context, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	theirs := r.theirs.Load().(string)
	if r.tried[theirs] {
		return nil
	}
	r.tried[theirs] = true
	cert, err := parse([]byte(r.now.Load().Certificate))
	if err != nil || !due(cert, now) && (theirs == "" || theirs == r.trusts()) {
		return err
	}
	return r.renew(ctx)
}

func (r *renewal) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewing)
	defer cancel()
	answer, err := r.client.Inventory.RenewCredentials(ctx, connect.NewRequest(&bootv1.RenewCredentialsRequest{}))
	if err != nil {
		return err
	}
	renewed := *r.now.Load()
	renewed.Certificate = string(answer.Msg.GetCertificate())
	if ca := answer.Msg.GetCa(); len(ca) > 0 {
		renewed.CA = string(ca)
	}
	if _, err := renewed.TLS(ServerName); err != nil {
		return err // it does not fit the key: the old one stays
	}
	if err := renewed.save(renewed.path); err != nil {
		return err
	}
	r.now.Store(&renewed)
	return nil
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
