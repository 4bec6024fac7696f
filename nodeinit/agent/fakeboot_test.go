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
	"slipway/configs/enroll"
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
	ca *testCA // signs
	// former signed before; it is trusted while both is set, and vouched for ca.
	former *testCA
	both   bool
	cross  []byte // what it signed for that, DER

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
	prepare    bool // a machine that waits may
	prepared   bool // it says it has
	enrolments []*bootv1.EnrollRequest
	fetches    int
	follows    int // fetches of a machine that has a config
	acks       int
	acked      []byte // digest
	renewals   int
	trusts     string // what a machine that has renewed says it trusts
	released   bool
	wiping     string // of a machine that is released
	byForce    bool
	applied    []byte // digest
	etcd       *bootv1.EtcdState
	wipe       *bootv1.WipeManifest
	disk       *bootv1.SystemDisk
	facts      *bootv1.Facts // of reports
	requests   *int          // of any kind, since it started
	phase      string
	waiting    string
	events     []string
	ages       map[string]int64
	held       string
	unknown    func(*bootv1.EnrollRequest) bool // whose key nobody has approved
	ended      string                           // that the agent has, though nobody stopped it
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
	requests := new(int) // what is under way at its end is not counted at the next start
	b.requests = requests
	mux := http.NewServeMux()
	mux.Handle(bootv1connect.NewEnrollServiceHandler(b))
	mux.Handle(bootv1connect.NewMachineServiceHandler(b))
	b.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b.update(func() { *requests++ })
			if b.admits(w, r) {
				mux.ServeHTTP(w, r)
			}
		}),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig: &tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return b.shown(), nil },
			ClientAuth:     tls.RequestClientCert, MinVersion: tls.VersionTLS13,
		},
	}
	go b.server.ServeTLS(listener, "", "")
}

// shown is the server's certificate, with what leads back to the former CA.
func (b *bootService) shown() *tls.Certificate {
	b.mu.Lock()
	defer b.mu.Unlock()
	pair := b.ca.pair(b.t, "boot", "slipway:server")
	if b.former != nil {
		pair.Certificate = append(pair.Certificate, b.cross, b.former.cert.Raw)
	}
	return &pair
}

// bundle are the CAs that are trusted.
func (b *bootService) bundle() []byte {
	text := toPEM(b.ca.cert.Raw)
	if b.both {
		text = append(text, toPEM(b.former.cert.Raw)...)
	}
	return text
}

// admits refuses certificates of CAs that are trusted no more, as the API does.
func (b *bootService) admits(w http.ResponseWriter, r *http.Request) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Header().Set(enroll.TrustHeader, enroll.TrustDigest(b.bundle()))
	if len(r.TLS.PeerCertificates) == 0 {
		return true
	}
	cert := r.TLS.PeerCertificates[0]
	if cert.CheckSignatureFrom(b.ca.cert) == nil {
		b.trusts = r.Header.Get(enroll.TrustHeader)
		return true
	}
	w.Header().Set("Connection", "close")
	if b.both && cert.CheckSignatureFrom(b.former.cert) == nil {
		return true
	}
	w.WriteHeader(http.StatusUnauthorized)
	return false
}

// rotate has another CA sign; the one that did is trusted still.
func (b *bootService) rotate() {
	next := newCA(b.t)
	template := *next.cert
	template.Raw, template.SerialNumber = nil, big.NewInt(2)
	cross, err := x509.CreateCertificate(rand.Reader, &template, b.ca.cert, &next.key.PublicKey, b.ca.key)
	if err != nil {
		b.t.Fatal(err)
	}
	b.update(func() { b.former, b.ca, b.both, b.cross = b.ca, next, true, cross })
}

func (b *bootService) RenewCertificate(_ context.Context, r *connect.Request[bootv1.RenewCertificateRequest]) (*connect.Response[bootv1.RenewCertificateResponse], error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.renewals++
	return connect.NewResponse(&bootv1.RenewCertificateResponse{Certificate: b.certify(b.enrolments[0].Csr), Ca: b.bundle()}), nil
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
		if b.approved && (b.unknown == nil || !b.unknown(r.Msg)) {
			answer.State, answer.Ca, answer.Certificate = bootv1.EnrollResponse_APPROVED, b.bundle(), b.certify(r.Msg.Csr)
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
	cert := toPEM(b.ca.sign(b.t, request.PublicKey.(*ecdsa.PublicKey), request.Subject.CommonName, "slipway:machine"))
	if b.former != nil {
		cert = append(cert, toPEM(b.cross)...)
	}
	return cert
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
			answer.WaitingFor, answer.Prepare = "a cluster", b.prepare && !r.Msg.Prepared
			b.prepared = r.Msg.Prepared
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
		sum, config, released, byForce, wiping, news := sha256.Sum256(b.config), b.config, b.released, b.byForce, b.wiping, b.news
		b.mu.Unlock()
		switch {
		case released:
			return connect.NewResponse(&bootv1.FetchConfigResponse{Released: true, ByForce: byForce, Wipe: wiping}), nil
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
		if r.Msg.Facts != nil {
			b.facts = r.Msg.Facts
		}
		for _, e := range r.Msg.Events {
			b.events, b.ages[e.Name] = append(b.events, e.Name), e.AgeMs
		}
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	return connect.NewResponse(&bootv1.ReportResponse{Held: b.held, Released: b.released, Wipe: b.wiping}), nil
}
