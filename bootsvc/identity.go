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
	backupValidity = 24 * time.Hour
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
	shown  issued // to the API's clients
	backup issued // to nodes, whose etcd it takes snapshots of
}

// issued is a certificate that is made anew a third of its life before its end.
type issued struct {
	cert *tls.Certificate
	due  time.Time
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

// certificate is what the API shows. The CA itself closes the chain: machines
// know that by its hash only.
func (i *identity) certificate() (*tls.Certificate, error) {
	return i.renew(&i.shown, pki.Request{
		CommonName: client.ServerName, DNSNames: i.names, IPs: i.ips, Server: true, Validity: serverValidity,
	})
}

// backupCertificate is what the boot service shows to nodes: it may look at
// their etcd and take snapshots of it, and nothing else.
func (i *identity) backupCertificate() (*tls.Certificate, error) {
	return i.renew(&i.backup, pki.Request{
		CommonName: client.ServerName, Organizations: []string{string(api.Backup)}, Client: true, Validity: backupValidity,
	})
}

// renew returns the certificate that was issued, or a new one when it is time.
func (i *identity) renew(kept *issued, r pki.Request) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if kept.cert != nil && i.now().Before(kept.due) {
		return kept.cert, nil
	}
	leaf, err := i.ca.Issue(r, i.now())
	if err != nil {
		return nil, err
	}
	chain := append(append([]byte(nil), leaf.CertPEM...), i.ca.CertPEM...)
	cert, err := tls.X509KeyPair(chain, leaf.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("use certificate of %s: %w", r.CommonName, err)
	}
	*kept = issued{cert: &cert, due: i.now().Add(r.Validity / 3 * 2)}
	return kept.cert, nil
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
