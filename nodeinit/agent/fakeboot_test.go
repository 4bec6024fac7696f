package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
)

// testCA signs certificates for the tests.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) *testCA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test boot CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{cert, key}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate for a person, a server or a machine.
func (c *testCA) sign(t testing.TB, key *ecdsa.PublicKey, name, organization string) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{organization}},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// pair is a certificate with its key and its CA behind it.
func (c *testCA) pair(t testing.TB, name, organization string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	return tls.Certificate{Certificate: [][]byte{c.sign(t, &key.PublicKey, name, organization), c.cert.Raw}, PrivateKey: key}
}

func toPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// bootService is a boot service by hand. Its fields say how it behaves.
type bootService struct {
	bootv1connect.UnimplementedMachineServiceHandler

	bootv1connect.UnimplementedEnrollServiceHandler
	t  *testing.T
	ca *testCA

	mu         sync.Mutex
	addr       string // where it listens, kept over a restart
	server     *http.Server
	approved   bool
	refuseKeys int // how many enrolments are refused for good
	loseFetch  int // how many answers with a config are lost on the way
	delivered  bool
	redeemed   bool
	snapshot   []byte
	config     []byte
	enrolments []*bootv1.EnrollRequest
	fetches    int
	follows    int // fetches of a machine that has a config
	acks       int
	acked      []byte // digest
	released   bool
	byForce    bool
	applied    []byte // digest
	etcd       *bootv1.EtcdState
	wipe       *bootv1.WipeManifest
	disk       *bootv1.SystemDisk
	requests   int // of any kind
	phase      string
	waiting    string
	events     []string
	ages       map[string]int64
	held       string
	ended      string // that the agent has, though nobody stopped it
	changed    chan struct{}
	news       chan struct{} // closed at each update
}

func newBootService(t *testing.T) *bootService {
	b := &bootService{t: t, ca: newCA(t), addr: "127.0.0.1:0", ages: map[string]int64{}, changed: make(chan struct{}, 1), news: make(chan struct{})}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bootService) start() {
	b.t.Helper()
	listener, err := net.Listen("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.addr = listener.Addr().String()
	mux := http.NewServeMux()
	mux.Handle(bootv1connect.NewEnrollServiceHandler(b))
	mux.Handle(bootv1connect.NewMachineServiceHandler(b))
	pool := x509.NewCertPool()
	pool.AddCert(b.ca.cert)
	b.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b.update(func() { b.requests++ })
			mux.ServeHTTP(w, r)
		}),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{b.ca.pair(b.t, "boot", "slipway:server")},
			ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: pool, MinVersion: tls.VersionTLS13,
		},
	}
	go b.server.ServeTLS(listener, "", "")
}

func (b *bootService) stop() { _ = b.server.Close() }

func (b *bootService) update(change func()) {
	b.mu.Lock()
	change()
	close(b.news)
	b.news = make(chan struct{})
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// patience is for a computer that does much else. A test that fails says so
// after that long; one that passes waits for none of it.
const patience = 2 * time.Minute

// await waits until the boot service has seen something.
func (b *bootService) await(what string, seen func() bool) {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		b.mu.Lock()
		ok, ended := seen(), b.ended
		b.mu.Unlock()
		if ok {
			return
		}
		late := ended != ""
		if !late {
			select {
			case <-b.changed:
			case <-deadline:
				late = true
			}
		}
		if late {
			b.t.Fatalf("%s did not happen: %d enrolments, %d fetches, %d acks, phase %q (%s), events %v%s",
				what, len(b.enrolments), b.fetches, b.acks, b.phase, b.waiting, b.events, ended)
		}
	}
}

func (b *bootService) Enroll(_ context.Context, r *connect.Request[bootv1.EnrollRequest]) (*connect.Response[bootv1.EnrollResponse], error) {
	var answer *bootv1.EnrollResponse
	var err error
	b.update(func() {
		b.enrolments = append(b.enrolments, r.Msg)
		if b.refuseKeys > 0 {
			b.refuseKeys--
			err = connect.NewError(connect.CodePermissionDenied, errors.New("this key was replaced"))
			return
		}
		answer = &bootv1.EnrollResponse{State: bootv1.EnrollResponse_PENDING, WaitingFor: "approval", ServerTime: timestamppb.Now()}
		if b.approved {
			answer.State, answer.Ca, answer.Certificate = bootv1.EnrollResponse_APPROVED, toPEM(b.ca.cert.Raw), b.certify(r.Msg.Csr)
		}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

func (b *bootService) certify(csr []byte) []byte {
	request, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		b.t.Error(err)
		return nil
	}
	return toPEM(b.ca.sign(b.t, request.PublicKey.(*ecdsa.PublicKey), request.Subject.CommonName, "slipway:machine"))
}

func (b *bootService) FetchConfig(ctx context.Context, r *connect.Request[bootv1.FetchConfigRequest]) (*connect.Response[bootv1.FetchConfigResponse], error) {
	var answer bootv1.FetchConfigResponse
	var err error
	if len(r.Msg.Have) > 0 {
		return b.follow(ctx, r.Msg.Have)
	}
	b.update(func() {
		b.fetches++
		switch {
		case b.delivered:
			err = connect.NewError(connect.CodeFailedPrecondition, errors.New("delivered already"))
		case b.config == nil:
			answer.WaitingFor = "a cluster"
		case b.loseFetch > 0:
			b.loseFetch--
			err = connect.NewError(connect.CodeUnavailable, errors.New("connection reset"))
		default:
			answer.Config, answer.Certificate = b.config, b.certify(b.enrolments[len(b.enrolments)-1].Csr)
		}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&answer), nil
}

// follow blocks until the machine is to have another config, or none.
func (b *bootService) follow(ctx context.Context, have []byte) (*connect.Response[bootv1.FetchConfigResponse], error) {
	b.update(func() { b.follows++ })
	for {
		b.mu.Lock()
		sum, config, released, byForce, news := sha256.Sum256(b.config), b.config, b.released, b.byForce, b.news
		b.mu.Unlock()
		switch {
		case released:
			return connect.NewResponse(&bootv1.FetchConfigResponse{Released: true, ByForce: byForce}), nil
		case !bytes.Equal(sum[:], have):
			return connect.NewResponse(&bootv1.FetchConfigResponse{Config: config}), nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-news:
		}
	}
}

func (b *bootService) AckConfig(_ context.Context, r *connect.Request[bootv1.AckConfigRequest]) (*connect.Response[bootv1.AckConfigResponse], error) {
	b.update(func() { b.acks++; b.acked = r.Msg.Config; b.delivered = true })
	return connect.NewResponse(&bootv1.AckConfigResponse{}), nil
}

func (b *bootService) ReportWipe(_ context.Context, r *connect.Request[bootv1.ReportWipeRequest]) (*connect.Response[bootv1.ReportWipeResponse], error) {
	b.update(func() { b.wipe = r.Msg.Manifest })
	return connect.NewResponse(&bootv1.ReportWipeResponse{}), nil
}

func (b *bootService) Report(_ context.Context, r *connect.Request[bootv1.ReportRequest]) (*connect.Response[bootv1.ReportResponse], error) {
	b.update(func() {
		if r.Msg.Phase != "" {
			b.phase = r.Msg.Phase
		}
		b.waiting, b.applied, b.etcd, b.disk = r.Msg.WaitingFor, r.Msg.Applied, r.Msg.Etcd, r.Msg.SystemDisk
		for _, e := range r.Msg.Events {
			b.events, b.ages[e.Name] = append(b.events, e.Name), e.AgeMs
		}
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	return connect.NewResponse(&bootv1.ReportResponse{Held: b.held, Released: b.released}), nil
}
