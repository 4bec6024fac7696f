package bootsvc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"slipway/bootsvc/api"
	"slipway/bootsvc/api/client"
	"slipway/bootsvc/store"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

// How long the boot service's own certificates hold. The server's is renewed
// while it runs, the administrator's with every start.
const (
	caValidity     = 20 * 365 * 24 * time.Hour
	serverValidity = 90 * 24 * time.Hour
	adminValidity  = 365 * 24 * time.Hour
)

// identity is who the boot service is: its CA, and the server certificate that
// it shows now.
type identity struct {
	ca    pki.CA
	root  *x509.Certificate
	names []string
	ips   []net.IP
	now   func() time.Time

	mu     sync.Mutex
	shown  *tls.Certificate
	expiry time.Time
}

// newIdentity reads the CA from the store, or makes it on the first start.
func newIdentity(ctx context.Context, s *store.Store, address netip.Addr, now func() time.Time) (*identity, error) {
	fresh, err := pki.NewCA("Slipway boot service", now(), caValidity)
	if err != nil {
		return nil, err
	}
	ca, err := store.SealedTable[pki.CA](s, "boot-ca").Update(ctx, "ca", func(kept *pki.CA) error {
		if len(kept.CertPEM) == 0 {
			*kept = fresh
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the boot service's CA: %w", err)
	}
	root, err := pki.ParseCert(ca.CertPEM)
	if err != nil {
		return nil, fmt.Errorf("read the boot service's CA: %w", err)
	}
	return &identity{
		ca: ca, root: root, now: now,
		names: []string{client.ServerName, "localhost"},
		ips:   []net.IP{address.AsSlice(), net.IPv4(127, 0, 0, 1)},
	}, nil
}

// certificate is what the API shows. A third before its end it makes a new one.
func (i *identity) certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.shown != nil && i.now().Before(i.expiry.Add(-serverValidity/3)) {
		return i.shown, nil
	}
	leaf, err := i.ca.Issue(pki.Request{
		CommonName: client.ServerName, DNSNames: i.names, IPs: i.ips, Server: true, Validity: serverValidity,
	}, i.now())
	if err != nil {
		return nil, err
	}
	// The CA itself closes the chain: machines know it by its hash only.
	chain := append(append([]byte(nil), leaf.CertPEM...), i.ca.CertPEM...)
	cert, err := tls.X509KeyPair(chain, leaf.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("use server certificate: %w", err)
	}
	i.shown, i.expiry = &cert, i.now().Add(serverValidity)
	return i.shown, nil
}

func (i *identity) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(i.root)
	return pool
}

// writeFiles leaves the CA certificate and the administrator's context in the
// data folder.
func (i *identity) writeFiles(dir, server string) error {
	leaf, err := i.ca.Issue(pki.Request{
		CommonName: "admin", Organizations: []string{string(api.Admin)}, Client: true, Validity: adminValidity,
	}, i.now())
	if err != nil {
		return err
	}
	text, err := client.Context{
		Servers: []string{server}, CA: string(i.ca.CertPEM),
		Certificate: string(leaf.CertPEM), Key: secret.New(string(leaf.KeyPEM)),
	}.Encode()
	if err != nil {
		return err
	}
	return errors.Join(
		replace(filepath.Join(dir, "ca.pem"), i.ca.CertPEM, 0o644),
		replace(filepath.Join(dir, "admin.yaml"), text, 0o600))
}

// replace writes a file whole: a reader sees the old text or the new one.
func replace(path string, data []byte, mode os.FileMode) error {
	part, err := os.CreateTemp(filepath.Dir(path), ".part-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(part.Name())
	_, err = part.Write(data)
	if err := errors.Join(err, part.Chmod(mode), part.Sync(), part.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(part.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
