package bootsvc

import (
	"context"
	"crypto/ecdsa"
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
	"slipway/bootsvc/authority"
	"slipway/bootsvc/store"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

// How long the boot service's own certificates hold. The server's is renewed
// while it runs, the administrator's with every start too.
const (
	serverValidity = 90 * 24 * time.Hour
	adminValidity  = 365 * 24 * time.Hour
	backupValidity = 24 * time.Hour
)

// identity is who the boot service is: its CA, and the certificates that it
// shows now.
type identity struct {
	ca    *authority.Keeper
	names []string
	ips   []net.IP
	now   func() time.Time

	mu     sync.Mutex
	shown  issued // to the API's clients
	backup issued // to nodes, whose etcd it takes snapshots of
}

// issued is a certificate that is made anew a third of its life before its end,
// and when another CA signs.
type issued struct {
	cert *tls.Certificate
	due  time.Time
	by   *x509.Certificate
}

// newIdentity reads the CA from the store, or makes it on the first start.
func newIdentity(ctx context.Context, s *store.Store, address netip.Addr, now func() time.Time) (*identity, error) {
	ca, err := authority.Open(ctx, s, now)
	if err != nil {
		return nil, err
	}
	return &identity{
		ca: ca, now: now,
		names: []string{client.ServerName, "localhost"},
		ips:   []net.IP{address.AsSlice(), net.IPv4(127, 0, 0, 1)},
	}, nil
}

// certificate is what the API shows. The chain has the CA itself: machines know
// that by its hash only.
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
	ca := i.ca.View()
	if kept.cert != nil && i.now().Before(kept.due) && kept.by.Equal(ca.Signer) {
		return kept.cert, nil
	}
	leaf, err := ca.Issue(r, i.now())
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(ca.Shown(leaf.CertPEM), leaf.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("use certificate of %s: %w", r.CommonName, err)
	}
	*kept = issued{cert: &cert, due: i.now().Add(r.Validity / 3 * 2), by: ca.Signer}
	return kept.cert, nil
}

// writeFiles leaves the CA certificates and the administrator's context in the
// data folder. It returns the hash of the administrator's key, which stays the
// same: copies of the file are the same person's.
func (i *identity) writeFiles(dir, server string) (key string, err error) {
	path, ca := filepath.Join(dir, "admin.yaml"), i.ca.View()
	pair, keyPEM, err := adminKey(path)
	if err != nil {
		return "", err
	}
	cert, err := ca.Sign(pair.Public(), pki.Request{
		CommonName: "admin", Organizations: []string{string(api.Admin)}, Client: true, Validity: adminValidity,
	}, i.now())
	if err != nil {
		return "", err
	}
	text, err := client.Context{
		Servers: []string{server}, CA: string(ca.Bundle), Certificate: string(cert), Key: secret.New(string(keyPEM)),
	}.Encode()
	if err != nil {
		return "", err
	}
	hash, err := pki.KeyHash(pair.Public())
	return hash, errors.Join(err,
		replace(filepath.Join(dir, "ca.pem"), ca.Bundle, 0o644),
		replace(path, text, 0o600))
}

// adminKey is the key of the context that is there, or a new one.
func adminKey(path string) (*ecdsa.PrivateKey, []byte, error) {
	if old, err := client.Load(path); err == nil {
		text := []byte(old.Key.Reveal())
		if key, err := pki.ParseKey(text); err == nil {
			return key, text, nil
		}
	}
	return pki.NewKey()
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
