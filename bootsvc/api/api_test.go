package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/proto"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/api/client"
	"slipway/bootsvc/assign"
	"slipway/bootsvc/authority"
	"slipway/bootsvc/enroll"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/refusal"
	"slipway/bootsvc/snapshot"
	"slipway/bootsvc/store"
	configs "slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/controlplane/pki"
)

const machineID = "52-54-00-00-00-01"

// site is a boot service's API on a loopback port, and its CA.
type site struct {
	url    string
	ca     pki.CA
	desk   *enroll.Desk
	server *Server
}

func newCA(t *testing.T, name string) pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name, time.Now(), 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func pool(t *testing.T, ca pki.CA) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.CertPEM) {
		t.Fatal("no certificate")
	}
	return pool
}

// keyPair issues a certificate of a CA, ready to be used.
func keyPair(t *testing.T, ca pki.CA, r pki.Request) *tls.Certificate {
	t.Helper()
	r.Validity = time.Hour
	leaf, err := ca.Issue(r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

// start runs the API until the test ends.
func start(t *testing.T, rules enroll.Rules) *site {
	t.Helper()
	dir, log, metrics := t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil)), prometheus.NewRegistry()
	state, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(state.Close)
	keeper, err := authority.Open(t.Context(), state, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ca := keeper.View().CA
	machines := inventory.New(state, log, metrics)
	desk := &enroll.Desk{Inventory: machines, CA: keeper.View, Rules: rules, Now: time.Now}
	snapshots, err := snapshot.Open(filepath.Join(dir, "snapshots"), log, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{
		Snapshots: snapshots, Take: snapshot.NewTaker(snapshots, &snapshot.Nodes{}).Take,
		Inventory: machines, Desk: desk, Office: assign.New(state, machines, keeper, time.Now),
		Certificate: func() (*tls.Certificate, error) { return show(keeper.View()) },
		Metrics:     promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}),
		Refusals:    refusal.New(log, metrics, time.Now), Log: log, Now: time.Now,
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- server.Serve(ctx, listener, func() {}) }()
	go func() { done <- keeper.Run(ctx, log, func(*authority.View) error { return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	return &site{url: "https://" + listener.Addr().String(), ca: ca, desk: desk, server: server}
}

// show makes a certificate of the server.
func show(ca *authority.View) (*tls.Certificate, error) {
	leaf, err := ca.Issue(pki.Request{
		CommonName: "slipway", DNSNames: []string{client.ServerName}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, Validity: time.Hour,
	}, time.Now())
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(ca.Shown(leaf.CertPEM), leaf.KeyPEM)
	return &cert, err
}

// as is an HTTP client that shows a certificate; nil shows none.
func (s *site) as(t *testing.T, cert *tls.Certificate) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: pool(t, s.ca), MinVersion: tls.VersionTLS13}
	if cert != nil {
		// Whatever CAs the server names: a stranger shows what it has.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 45 * time.Second}
}

// person has a certificate with a role.
func (s *site) person(t *testing.T, role Role) *http.Client {
	return s.as(t, keyPair(t, s.ca, pki.Request{CommonName: "ann", Organizations: []string{string(role)}, Client: true}))
}

// newMachine is a machine's side: its key, and what it says.
type newMachine struct {
	key     *ecdsa.PrivateKey
	keyPEM  []byte
	request *bootv1.EnrollRequest
}

func makeMachine(t *testing.T) newMachine {
	t.Helper()
	key, keyPEM, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(pkix.Name{CommonName: machineID}, key)
	if err != nil {
		t.Fatal(err)
	}
	return newMachine{key, keyPEM, &bootv1.EnrollRequest{
		MachineId: machineID, Address: "127.0.0.1", Csr: csr, Facts: &bootv1.Facts{Vendor: "QEMU", Arch: "amd64"},
	}}
}

func (s *site) enrol(t *testing.T, m newMachine) (*bootv1.EnrollResponse, error) {
	t.Helper()
	client := bootv1connect.NewEnrollServiceClient(s.as(t, nil), s.url)
	answer, err := client.Enroll(t.Context(), connect.NewRequest(m.request))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// enrolled is the client of a machine with the certificate that it was given.
func (s *site) enrolled(t *testing.T, m newMachine, certificate []byte) bootv1connect.MachineServiceClient {
	t.Helper()
	cert, err := tls.X509KeyPair(certificate, m.keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return bootv1connect.NewMachineServiceClient(s.as(t, &cert), s.url)
}

func wantCode(t *testing.T, what string, err error, code connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v; want %v with %q", what, err, code, text)
	}
}

func TestAMachineGoesFromEnrolmentToItsConfig(t *testing.T) {
	s := start(t, enroll.Rules{})
	m := makeMachine(t)
	people := bootv1connect.NewInventoryServiceClient(s.person(t, Operator), s.url)
	clusters := bootv1connect.NewClusterServiceClient(s.person(t, Admin), s.url)

	answer, err := s.enrol(t, m)
	if err != nil || answer.GetState() != bootv1.EnrollResponse_PENDING || answer.GetWaitingFor() == "" {
		t.Fatalf("the first enrolment: %v, %v", answer, err)
	}
	list, err := people.ListMachines(t.Context(), connect.NewRequest(&bootv1.ListMachinesRequest{}))
	if err != nil || len(list.Msg.GetMachines()) != 1 {
		t.Fatalf("the list: %v, %v", list, err)
	}
	_, err = people.Approve(t.Context(), connect.NewRequest(&bootv1.ApproveRequest{Id: machineID, Words: "not-the-right-words"}))
	wantCode(t, "other words", err, connect.CodeFailedPrecondition, list.Msg.GetMachines()[0].GetWords())
	if _, err := people.Approve(t.Context(), connect.NewRequest(&bootv1.ApproveRequest{Id: "52:54:00:00:00:01", Words: list.Msg.GetMachines()[0].GetWords()})); err != nil {
		t.Fatal(err)
	}
	if answer, err = s.enrol(t, m); err != nil || answer.GetState() != bootv1.EnrollResponse_APPROVED {
		t.Fatalf("the approved enrolment: %v, %v", answer, err)
	}
	document := []byte("name: prod\nmachines:\n- id: " + machineID + "\n")
	if _, err := clusters.CreateCluster(t.Context(), connect.NewRequest(&bootv1.CreateClusterRequest{Cluster: document})); err != nil {
		t.Fatal(err)
	}
	s.deliver(t, m, answer.GetCertificate())

	got, err := people.GetMachine(t.Context(), connect.NewRequest(&bootv1.GetMachineRequest{Id: machineID}))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range got.Msg.GetMachine().GetTimeline() {
		names = append(names, e.GetName())
	}
	if timeline := strings.Join(names, " "); timeline != "kernel enrolling approved enrolled assigned configured ready" {
		t.Errorf("the timeline is %s", timeline)
	}
	if phase := got.Msg.GetMachine().GetPhase(); phase != "ready" {
		t.Errorf("the phase is %s", phase)
	}
	kubeconfig, err := clusters.Kubeconfig(t.Context(), connect.NewRequest(&bootv1.KubeconfigRequest{}))
	if err != nil || !strings.Contains(string(kubeconfig.Msg.GetKubeconfig()), "https://127.0.0.1:6443") {
		t.Errorf("the kubeconfig: %s, %v", kubeconfig, err)
	}
}

// deliver takes a machine from its certificate to ready, and checks that the
// config comes until it is acknowledged and not after.
func (s *site) deliver(t *testing.T, m newMachine, certificate []byte) {
	t.Helper()
	client := s.enrolled(t, m, certificate)
	for range 2 {
		answer, err := client.FetchConfig(t.Context(), connect.NewRequest(&bootv1.FetchConfigRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		config, err := machine.Parse(answer.Msg.GetConfig(), "config")
		if err != nil || config.Hostname != "prod-cp-1" {
			t.Fatalf("the config: %v, %v", config, err)
		}
		cert, err := pki.ParseCert(answer.Msg.GetCertificate())
		if err != nil || cert.VerifyHostname("prod-cp-1") != nil || cert.VerifyHostname("127.0.0.1") != nil || !m.key.PublicKey.Equal(cert.PublicKey) {
			t.Errorf("the certificate: %v, %v", cert, err)
		}
	}
	if _, err := client.AckConfig(t.Context(), connect.NewRequest(&bootv1.AckConfigRequest{})); err != nil {
		t.Fatal(err)
	}
	_, err := client.FetchConfig(t.Context(), connect.NewRequest(&bootv1.FetchConfigRequest{}))
	wantCode(t, "a second delivery", err, connect.CodeFailedPrecondition, "acknowledged")
	for _, report := range []*bootv1.ReportRequest{
		{Events: []*bootv1.Event{{Name: "kernel", AgeMs: 60_000}}, Phase: "joining"},
		{Events: []*bootv1.Event{{Name: "ready"}}, Phase: "ready"},
	} {
		if _, err := client.Report(t.Context(), connect.NewRequest(report)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAReplacedKeyGetsNothing(t *testing.T) {
	s := start(t, enroll.Any())
	first, second := makeMachine(t), makeMachine(t)
	before, err := s.enrol(t, first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.enrol(t, second); err != nil {
		t.Fatal(err)
	}
	_, err = s.enrol(t, first)
	wantCode(t, "a replayed enrolment", err, connect.CodePermissionDenied, "replaced")
	client := s.enrolled(t, first, before.GetCertificate())
	_, err = client.FetchConfig(t.Context(), connect.NewRequest(&bootv1.FetchConfigRequest{}))
	wantCode(t, "a config for the old key", err, connect.CodePermissionDenied, "does not speak")
	_, err = client.Report(t.Context(), connect.NewRequest(&bootv1.ReportRequest{Phase: "ready"}))
	wantCode(t, "a report with the old key", err, connect.CodePermissionDenied, "does not speak")
}

func TestBadMachines(t *testing.T) {
	s := start(t, enroll.Any())
	for name, change := range map[string]func(*bootv1.EnrollRequest){
		"another's address":  func(r *bootv1.EnrollRequest) { r.Address = "10.0.0.1" },
		"no address":         func(r *bootv1.EnrollRequest) { r.Address = "" },
		"no ID":              func(r *bootv1.EnrollRequest) { r.MachineId = "" },
		"no CSR":             func(r *bootv1.EnrollRequest) { r.Csr = nil },
		"too many disks":     func(r *bootv1.EnrollRequest) { r.Facts.Disks = make([]*bootv1.Disk, configs.MaxDisks+1) },
		"an impossible CSR":  func(r *bootv1.EnrollRequest) { r.Csr = make([]byte, 100_000) },
		"an ID with escapes": func(r *bootv1.EnrollRequest) { r.MachineId = "\x1b[2J" },
	} {
		m := makeMachine(t)
		change(m.request)
		_, err := s.enrol(t, m)
		wantCode(t, name, err, connect.CodeInvalidArgument, "bad enrolment request")
	}
	m := makeMachine(t)
	m.request.Facts.Vendor = strings.Repeat("x", 2*maxMessage)
	_, err := s.enrol(t, m)
	wantCode(t, "a huge body", err, connect.CodeResourceExhausted, "")
}

func TestAStrangerHasARation(t *testing.T) {
	s := start(t, enroll.Rules{})
	m := makeMachine(t)
	m.request.Csr = nil
	client := bootv1connect.NewEnrollServiceClient(s.as(t, nil), s.url)
	for range 2 * burst {
		if _, err := client.Enroll(t.Context(), connect.NewRequest(m.request)); connect.CodeOf(err) == connect.CodeResourceExhausted {
			return
		}
	}
	t.Errorf("%d enrolments at once from one address", 2*burst)
}

func TestBadReports(t *testing.T) {
	s := start(t, enroll.Any())
	m := makeMachine(t)
	answer, err := s.enrol(t, m)
	if err != nil {
		t.Fatal(err)
	}
	client := s.enrolled(t, m, answer.GetCertificate())
	for name, report := range map[string]*bootv1.ReportRequest{
		"a phase that is not the machine's to say": {Phase: "approved"},
		"an event without a name":                  {Events: []*bootv1.Event{{}}},
		"an event with escapes":                    {Events: []*bootv1.Event{{Name: "\x1b[2J"}}},
		"too many events":                          {Events: make([]*bootv1.Event, maxEvents+1)},
		"too many disks":                           {Facts: &bootv1.Facts{Disks: make([]*bootv1.Disk, configs.MaxDisks+1)}},
		"too many network cards":                   {Facts: &bootv1.Facts{Nics: make([]*bootv1.NIC, configs.MaxNICs+1)}},
	} {
		_, err := client.Report(t.Context(), connect.NewRequest(report))
		wantCode(t, name, err, connect.CodeInvalidArgument, "")
	}
}

// TestReportedFacts: what a report says of the hardware takes the place of the
// enrolment's facts, bounded like these; one that says nothing leaves them.
func TestReportedFacts(t *testing.T) {
	s := start(t, enroll.Any())
	m := makeMachine(t)
	answer, err := s.enrol(t, m)
	if err != nil {
		t.Fatal(err)
	}
	client := s.enrolled(t, m, answer.GetCertificate())
	people := bootv1connect.NewInventoryServiceClient(s.person(t, Reader), s.url)
	for _, report := range []*bootv1.ReportRequest{
		{Facts: &bootv1.Facts{Arch: "amd64", Cpus: 4, Disks: []*bootv1.Disk{{Name: "vda\x1b[2J", Size: 8 << 30, Model: strings.Repeat("x", 2*maxText)}}}},
		{Phase: "joining"},
	} {
		if _, err := client.Report(t.Context(), connect.NewRequest(report)); err != nil {
			t.Fatal(err)
		}
		want := &bootv1.Facts{Arch: "amd64", Cpus: 4, Disks: []*bootv1.Disk{{Name: "vda?[2J", Size: 8 << 30, Model: strings.Repeat("x", maxText)}}}
		if got := get(t, people); !proto.Equal(want, got.GetFacts()) || got.GetWords() == "" {
			t.Errorf("after %v the machine is %v", report, got)
		}
	}
}

func TestCurlCanUseIt(t *testing.T) {
	s := start(t, enroll.Rules{})
	answer, err := s.person(t, Reader).Post(s.url+bootv1connect.InventoryServiceListMachinesProcedure, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK || string(text) != "{}" {
		t.Errorf("%s: %s, %v", answer.Status, text, err)
	}
}
