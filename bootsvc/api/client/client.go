// Package client is how a person's program reaches the boot service: the file
// that says where it is and who the person is, and the typed clients made from
// it. The command line and tests use it; machines have their own way in.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/goccy/go-yaml"

	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/document"
	"slipway/configs/secret"
)

// ServerName is a name that every boot service's certificate has, so that one
// answers for another and addresses may change. It has dots, and no machine's
// host name has: a machine's certificate never speaks for the boot service.
const ServerName = "boot.slipway.internal"

// dialTimeout is how long one server may take to accept a connection.
const dialTimeout = 5 * time.Second

// Context is what a person needs to use a boot service. The zero value reaches
// nothing.
type Context struct {
	// Servers are the boot services' API addresses, https://host:port; the
	// first that accepts a connection is used.
	Servers []string `yaml:"servers"`
	// CA, Certificate and Key are PEM. While the boot service's CA is rotated,
	// CA holds two.
	CA          string        `yaml:"ca"`
	Certificate string        `yaml:"certificate"`
	Key         secret.String `yaml:"key"`

	path string // of the file it was read from; empty: of none
}

// Load reads a context file.
func Load(path string) (Context, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Context{}, fmt.Errorf("read context: %w: slipway serve writes it as admin.yaml in its --data-dir; name it with --context or SLIPWAY_CONTEXT", err)
	case errors.Is(err, fs.ErrPermission):
		return Context{}, fmt.Errorf("read context: %w: it holds a key, so only its owner may read it; copy it to a file of your own", err)
	case err != nil:
		return Context{}, fmt.Errorf("read context: %w", err)
	}
	var c Context
	source := document.Decode(data, path, &c)
	var ps document.Problems
	if len(c.Servers) == 0 {
		ps.Add("servers", "there is none", "the boot service's address, such as https://10.0.0.1:8443")
	}
	for i, server := range c.Servers {
		if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Port() == "" {
			ps.Add(document.Index("servers", i), fmt.Sprintf("%q is not a server", server), "https://host:port")
		}
	}
	c.path = path
	return c, source.Err(ps)
}

// Encode gives the context file's text. It holds the key: write it 0600.
func (c Context) Encode() ([]byte, error) {
	text, err := yaml.MarshalWithOptions(c, yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return nil, fmt.Errorf("encode context: %w", err)
	}
	return text, nil
}

// Client speaks to the boot service.
type Client struct {
	Inventory bootv1connect.InventoryServiceClient
	Clusters  bootv1connect.ClusterServiceClient
	Authority bootv1connect.AuthorityServiceClient
}

// New returns a client. It connects when it is first used. That of a context
// file renews the certificate there when its time comes.
func (c Context) New() (*Client, error) {
	config, err := c.TLS(ServerName)
	if err != nil {
		return nil, err
	}
	renew := newRenewal(c)
	config.Certificates, config.GetClientCertificate = nil, renew.certificate
	transport := &http.Transport{DialContext: c.dial, ForceAttemptHTTP2: true, TLSClientConfig: config}
	web := &http.Client{Transport: telling{transport, renew}}
	renewing := connect.WithInterceptors(connect.UnaryInterceptorFunc(renew.wrap))
	if c.path == "" {
		renewing = connect.WithInterceptors()
	}
	renew.client = &Client{Inventory: bootv1connect.NewInventoryServiceClient(web, "https://"+ServerName)}
	return &Client{
		Inventory: bootv1connect.NewInventoryServiceClient(web, "https://"+ServerName, renewing),
		Clusters:  bootv1connect.NewClusterServiceClient(web, "https://"+ServerName, renewing),
		Authority: bootv1connect.NewAuthorityServiceClient(web, "https://"+ServerName, renewing),
	}, nil
}

// TLS is how this person speaks to a server that has a certificate of the boot
// service's CA: the boot service itself, or a node by its address.
func (c Context) TLS(serverName string) (*tls.Config, error) {
	cert, err := c.pair()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(c.CA)) {
		return nil, errors.New("use context: ca holds no certificate")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: serverName,
		RootCAs: pool, Certificates: []tls.Certificate{*cert},
	}, nil
}

// pair is the person's certificate with its key.
func (c Context) pair() (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("use context: %w", err)
	}
	return &cert, nil
}

// dial connects to the first server that accepts.
func (c Context) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var errs []error
	dialer := net.Dialer{Timeout: dialTimeout}
	for _, server := range c.Servers {
		u, err := url.Parse(server)
		if err != nil {
			return nil, fmt.Errorf("use server %s: %w", server, err)
		}
		conn, err := dialer.DialContext(ctx, network, u.Host)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w (is slipway serve running there?)", errors.Join(errs...))
}
