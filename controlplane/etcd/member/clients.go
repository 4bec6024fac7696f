package member

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	// dialTimeout bounds the wait for a machine that may be off.
	dialTimeout = 2 * time.Second
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
	well  map[string]bool // those that answered the last time
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
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, DialTimeout: callTimeout, Logger: zap.NewNop(),
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: callTimeout, TLS: c.tls(),
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

// tls is called with mu held.
func (c *clients) tls() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(c.ca))
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, GetClientCertificate: c.certificate}
}

// reach connects to a member that did not answer the last time, and hangs up.
// The client library would try until its deadline, and could not say why.
func (c *clients) reach(ctx context.Context, endpoint string) error {
	c.mu.Lock()
	well, config := c.well[endpoint], c.tls()
	c.mu.Unlock()
	if well {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", host(endpoint))
	if err != nil {
		return short(err)
	}
	return conn.Close()
}

// answered keeps whether a member did.
func (c *clients) answered(endpoint string, well bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.well == nil {
		c.well = map[string]bool{}
	}
	c.well[endpoint] = well
}

// short drops the addresses, which the texts around name.
func short(err error) error {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Timeout():
		return errors.New("it cannot be reached; is it on, and port 2379 open?")
	case errors.As(err, &op):
		return op.Err
	}
	return err
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
