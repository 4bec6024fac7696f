package snapshot

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"slipway/controlplane/pki"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

func TestWhoIsAskedFirst(t *testing.T) {
	status := func(name string, s *nodev1.EtcdStatusResponse) answer {
		return answer{member: Member{Hostname: name}, status: s}
	}
	silent := answer{member: Member{Hostname: "silent"}, err: errors.New("no answer")}
	got := order([]answer{
		silent,
		status("stopped", &nodev1.EtcdStatusResponse{Revision: 9}),
		status("learner", &nodev1.EtcdStatusResponse{Running: true, MemberId: "1", LeaderId: "5", Learner: true, Revision: 7}),
		status("lonely", &nodev1.EtcdStatusResponse{Running: true, MemberId: "2", Revision: 8}),
		status("leader", &nodev1.EtcdStatusResponse{Running: true, MemberId: "5", LeaderId: "5", Revision: 9}),
		status("behind", &nodev1.EtcdStatusResponse{Running: true, MemberId: "3", LeaderId: "5", Revision: 8}),
		status("follower", &nodev1.EtcdStatusResponse{Running: true, MemberId: "4", LeaderId: "5", Revision: 9}),
	})
	var names []string
	for _, a := range got {
		names = append(names, a.member.Hostname)
	}
	if order := strings.Join(names, " "); order != "follower behind leader lonely learner stopped silent" {
		t.Errorf("the order is %s", order)
	}
}

// node is a node's API on a loopback address, with a certificate of a CA.
type node struct {
	nodev1connect.UnimplementedEtcdServiceHandler
	status   *nodev1.EtcdStatusResponse
	snapshot []byte
	fails    error // after the snapshot's first half
	asked    []string
}

func (n *node) Status(context.Context, *connect.Request[nodev1.EtcdStatusRequest]) (*connect.Response[nodev1.EtcdStatusResponse], error) {
	return connect.NewResponse(n.status), nil
}

func (n *node) Snapshot(_ context.Context, _ *connect.Request[nodev1.EtcdSnapshotRequest], stream *connect.ServerStream[nodev1.EtcdSnapshotChunk]) error {
	data := n.snapshot
	if n.fails != nil {
		data = data[:len(data)/2]
	}
	for len(data) > 0 {
		size := min(len(data), 256<<10)
		if err := stream.Send(&nodev1.EtcdSnapshotChunk{Data: data[:size]}); err != nil {
			return err
		}
		data = data[size:]
	}
	return n.fails
}

// rack is nodes at 127.0.0.1, 127.0.0.2, ... on one port.
type rack struct {
	ca    pki.CA
	nodes *Nodes
	port  int
}

func newRack(t *testing.T) *rack {
	t.Helper()
	ca, err := pki.NewCA("boot service", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	r := &rack{ca: ca, nodes: &Nodes{Roots: func() *x509.CertPool { return roots }}}
	backup := r.certificate(t, pki.Request{CommonName: "boot service", Organizations: []string{"slipway:etcd-backup"}, Client: true})
	r.nodes.Certificate = func() (*tls.Certificate, error) { return backup, nil }
	return r
}

func (r *rack) certificate(t *testing.T, request pki.Request) *tls.Certificate {
	t.Helper()
	request.Validity = time.Hour
	leaf, err := r.ca.Issue(request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

// serve runs a node at 127.0.0.last; its certificate is for names and the
// organization that are given.
func (r *rack) serve(t *testing.T, last byte, n *node, organization string, ips ...net.IP) Member {
	t.Helper()
	address := netip.AddrFrom4([4]byte{127, 0, 0, last})
	listener, err := net.Listen("tcp4", netip.AddrPortFrom(address, uint16(r.port)).String())
	if err != nil {
		t.Fatal(err)
	}
	r.port = listener.Addr().(*net.TCPAddr).Port
	r.nodes.Port = r.port
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewEtcdServiceHandler(n))
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			n.asked = append(n.asked, strings.Join(q.TLS.PeerCertificates[0].Subject.Organization, " "))
			mux.ServeHTTP(w, q)
		}),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{*r.certificate(t, pki.Request{CommonName: "m", Organizations: []string{organization}, IPs: ips, Server: true, Client: true})},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: r.nodes.Roots(), MinVersion: tls.VersionTLS13,
		},
	}
	done := make(chan struct{})
	go func() { defer close(done); server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { server.Close(); <-done })
	return Member{Hostname: fmt.Sprintf("prod-cp-%d", last), Address: address}
}

func loopback(last byte) net.IP { return net.IPv4(127, 0, 0, last) }

func TestASnapshotIsTakenFromTheNextWhenOneFails(t *testing.T) {
	data, revision := genuine(t)
	r := newRack(t)
	voter := func(id string) *nodev1.EtcdStatusResponse {
		return &nodev1.EtcdStatusResponse{Running: true, MemberId: id, LeaderId: "1", Revision: revision, DbSize: int64(len(data))}
	}
	leader := &node{status: voter("1"), snapshot: data}
	broken := &node{status: voter("2"), snapshot: data, fails: connect.NewError(connect.CodeUnavailable, errors.New("etcd went away"))}
	damaged := &node{status: voter("3"), snapshot: append(bytes.Clone(data[1:]), 0)}
	members := []Member{
		r.serve(t, 1, leader, "slipway:machine", loopback(1)),
		r.serve(t, 2, broken, "slipway:machine", loopback(2)),
		r.serve(t, 3, damaged, "slipway:machine", loopback(3)),
		{Hostname: "prod-cp-4"},
	}
	s, _ := openStore(t, t.TempDir())
	got, err := NewTaker(s, r.nodes).Take(t.Context(), Origin{Cluster: "prod", By: "ann"}, members)
	if err != nil {
		t.Fatal(err)
	}
	if got.Revision != revision || got.By != "ann" || got.Of.Name != "prod" || ids(t, s, "") != got.ID {
		t.Errorf("it is %+v", got)
	}
	for name, n := range map[string]*node{"leader": leader, "broken": broken, "damaged": damaged} {
		if len(n.asked) != 2 || n.asked[0] != "slipway:etcd-backup" {
			t.Errorf("the %s one was asked by %q", name, n.asked)
		}
	}
	_, err = NewTaker(s, r.nodes).Take(t.Context(), Origin{Cluster: "prod"}, members[1:])
	if !errors.Is(err, ErrNoMember) {
		t.Errorf("without a good one: %v", err)
	}
	for _, want := range []string{"prod-cp-2", "etcd went away", "prod-cp-3", "does not match", "prod-cp-4", "its address is not known yet"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestOnlyMachinesAreAsked(t *testing.T) {
	data, _ := genuine(t)
	r := newRack(t)
	good := &node{status: &nodev1.EtcdStatusResponse{Running: true, LeaderId: "1"}, snapshot: data}
	members := map[string]Member{
		"not a machine's": r.serve(t, 1, good, "slipway:reader", loopback(1)),
		"valid for":       r.serve(t, 2, good, "slipway:machine", loopback(9)),
	}
	for want, member := range members {
		if _, err := r.nodes.Status(t.Context(), member.Address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if len(good.asked) > 0 {
		t.Errorf("they were asked by %q", good.asked)
	}
}

func TestAFullDiskIsNotTriedAgain(t *testing.T) {
	s, _ := openStore(t, t.TempDir())
	s.free = func(string) (int64, error) { return 0, nil }
	var pulls int
	taker := &Taker{
		store: s, turn: make(chan struct{}, 1),
		status: func(context.Context, netip.Addr) (*nodev1.EtcdStatusResponse, error) {
			return &nodev1.EtcdStatusResponse{DbSize: 1 << 30}, nil
		},
		pull: func(_ context.Context, _ netip.Addr, take func(io.Reader) error) error {
			pulls++
			return take(strings.NewReader(""))
		},
	}
	two := []Member{{"a", netip.MustParseAddr("10.0.0.1")}, {"b", netip.MustParseAddr("10.0.0.2")}}
	if _, err := taker.Take(t.Context(), Origin{Cluster: "prod"}, two); !errors.Is(err, ErrFull) || pulls != 1 {
		t.Errorf("%v after %d pulls", err, pulls)
	}
}
