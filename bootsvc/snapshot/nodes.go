package snapshot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// How long a node may take.
const (
	dialTimeout   = 3 * time.Second
	statusTimeout = 5 * time.Second  // a node that is slow must not be taken for dead
	stallTimeout  = 30 * time.Second // between two pieces of a snapshot
)

const (
	nodePort    = 8444
	maxAnswer   = 1 << 20 // bytes of one message
	machineRole = "slipway:machine"
)

// Nodes reaches the etcd members on the clusters' nodes, over their API.
type Nodes struct {
	// Roots are the CAs that may have signed the nodes' certificates. They are
	// asked for each connection, so that they can be rotated.
	Roots func() *x509.CertPool
	// Certificate is the boot service's own, with the role etcd-backup. It is
	// asked for each connection, so that it can be renewed.
	Certificate func() (*tls.Certificate, error)
	// Port is the node API's; 0 is 8444.
	Port int
}

// open returns a client of one node, and what ends its connections. The node
// must show a machine's certificate for this address.
func (n *Nodes) open(address netip.Addr) (nodev1connect.EtcdServiceClient, func()) {
	port := n.Port
	if port == 0 {
		port = nodePort
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: n.Roots(), VerifyConnection: isMachine,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return n.Certificate() },
		},
	}
	url := "https://" + net.JoinHostPort(address.String(), strconv.Itoa(port))
	return nodev1connect.NewEtcdServiceClient(&http.Client{Transport: transport}, url, connect.WithReadMaxBytes(maxAnswer)), transport.CloseIdleConnections
}

// isMachine refuses servers whose certificate, though of our CA, is no machine's.
func isMachine(state tls.ConnectionState) error {
	if !slices.Contains(state.PeerCertificates[0].Subject.Organization, machineRole) {
		return errors.New("the server's certificate is not a machine's")
	}
	return nil
}

// Status asks a node how its member of etcd is. It blocks for at most 5 s.
func (n *Nodes) Status(ctx context.Context, address netip.Addr) (*nodev1.EtcdStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	client, end := n.open(address)
	defer end()
	answer, err := client.Status(ctx, connect.NewRequest(&nodev1.EtcdStatusRequest{}))
	if err != nil {
		return nil, fmt.Errorf("ask %s for etcd's status: %w", address, err)
	}
	return answer.Msg, nil
}

// pull hands a snapshot of a node's member to take, as a reader. The reader
// fails when nothing comes for half a minute.
func (n *Nodes) pull(ctx context.Context, address netip.Addr, take func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("nothing came for %v", stallTimeout)) })
	defer stall.Stop()
	client, end := n.open(address)
	defer end()
	stream, err := client.Snapshot(ctx, connect.NewRequest(&nodev1.EtcdSnapshotRequest{}))
	if err != nil {
		return fmt.Errorf("pull a snapshot from %s: %w", address, err)
	}
	defer stream.Close()
	return take(FromChunks(func() ([]byte, error) {
		stall.Reset(stallTimeout)
		if stream.Receive() {
			return stream.Msg().GetData(), nil
		}
		if err := errors.Join(stream.Err(), context.Cause(ctx)); err != nil {
			return nil, fmt.Errorf("pull a snapshot from %s: %w", address, err)
		}
		stall.Stop() // the check comes next, and it takes what it takes
		return nil, io.EOF
	}))
}

// chunks is a reader of messages.
type chunks struct {
	next func() ([]byte, error)
	left []byte
}

// FromChunks is a reader of what next returns, piece by piece, until its error:
// io.EOF at the end.
func FromChunks(next func() ([]byte, error)) io.Reader { return &chunks{next: next} }

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.left) == 0 {
		var err error
		if c.left, err = c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}
