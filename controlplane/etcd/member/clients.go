package member

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	// callTimeout bounds a question to one member. Under software emulation a
	// handshake alone takes a second.
	callTimeout = 5 * time.Second
	// keepClients is how long connections are kept: those of machines that are
	// gone must go too.
	keepClients = 10 * time.Minute
)

// clients are connections to members, one for each, made when first asked for.
// The certificate is read anew at each handshake, so that a renewed one is used.
type clients struct {
	pki string

	mu    sync.Mutex
	ca    string // that all of them check against
	since time.Time
	open  map[string]*clientv3.Client
}

// to returns the client of one member.
func (c *clients) to(endpoint string) (*clientv3.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ca, err := os.ReadFile(filepath.Join(c.pki, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read etcd's CA: %w", err)
	}
	if string(ca) != c.ca || time.Since(c.since) > keepClients {
		c.closeAll()
		c.ca, c.since = string(ca), time.Now()
	}
	if client := c.open[endpoint]; client != nil {
		return client, nil
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, DialTimeout: callTimeout, Logger: zap.NewNop(),
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: callTimeout,
		TLS: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, GetClientCertificate: c.certificate},
	})
	if err != nil {
		return nil, err
	}
	if c.open == nil {
		c.open = map[string]*clientv3.Client{}
	}
	c.open[endpoint] = client
	return client, nil
}

func (c *clients) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.pki, "server.crt"), filepath.Join(c.pki, "server.key"))
	return &pair, err
}

// close ends all connections.
func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeAll()
}

// closeAll is called with mu held. A call that is under way on a connection
// fails, and is made again.
func (c *clients) closeAll() {
	for endpoint, client := range c.open {
		client.Close() // what it says of a connection that is gone is of no use
		delete(c.open, endpoint)
	}
}
