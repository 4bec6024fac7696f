package agent

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"slipway/configs/enroll"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

func exampleConfig(t *testing.T) []byte { return exampleOf(t, "control-plane") }

func exampleOf(t *testing.T, role string) []byte {
	t.Helper()
	data, err := os.ReadFile("../../configs/examples/machine-" + role + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestLife is a machine's life from its first packet to Ready, and after a
// restart of its agent.
func TestLife(t *testing.T) {
	b := newBootService(t)
	n := newNode(t, b)
	stop := n.start(t)

	b.await("a pending enrolment", func() bool { return len(b.enrolments) >= 2 })
	request := b.enrolments[0]
	csr, err := x509.ParseCertificateRequest(request.Csr)
	if err != nil {
		t.Fatal(err)
	}
	words := enroll.Words(csr.RawSubjectPublicKeyInfo, b.ca.cert.Raw)
	if s := n.screen.String(); !strings.Contains(s, words) || !strings.Contains(s, "waiting for approval of machine 52-54-00-12-34-56") {
		t.Errorf("the console does not show %q:\n%s", words, s)
	}
	if request.MachineId != "52-54-00-12-34-56" || request.Address != "127.0.0.1" || request.Facts.Cpus != 1 {
		t.Errorf("enrolment %v", request)
	}

	b.update(func() { b.approved = true })
	b.await("a fetch without a cluster", func() bool { return b.fetches > 0 })
	b.update(func() { b.config = exampleConfig(t) })
	applied := <-n.pid1.applied
	if string(applied.Config) != string(exampleConfig(t)) || applied.Address != "127.0.0.1" || applied.Link != "eth0" || !slices.Equal(applied.Nameservers, []string{"10.0.0.1"}) {
		t.Errorf("applied %v", applied)
	}
	if _, err := tls.X509KeyPair(applied.Certificate, applied.Key); err != nil {
		t.Errorf("the applied certificate: %v", err)
	}
	if name := <-n.hosts; name != "demo-cp-1" {
		t.Errorf("host name %q", name)
	}
	b.await("the receipt", func() bool { return b.acks == 1 })

	becomeReady(t, b, n)
	want := []string{"kernel", "init", "configured", "containerd", "etcd", "apiserver", "registered", "ready"}
	if diff := cmp.Diff(want, b.events); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	if kernel, init := b.ages["kernel"], b.ages["init"]; kernel-init < 1200 || kernel-init > 1300 {
		t.Errorf("kernel %d ms and init %d ms ago, want 1234 ms between them", kernel, init)
	}

	if !eventually(func() bool { return n.store.reported()["ready"] }) {
		t.Fatal("the agent does not remember what it reported")
	}
	stop()
	enrolments, fetches := len(b.enrolments), b.fetches
	n.start(t)
	<-n.pid1.applied
	b.await("the receipt again", func() bool { return b.acks == 2 })
	if len(b.enrolments) != enrolments || b.fetches != fetches {
		t.Errorf("the restarted agent enrolled or fetched again")
	}
	n.tell(b, "node", "starting", "a report", func() bool { return b.waiting == "unit node to be ready" })
	if b.phase != "ready" || !slices.Equal(b.events, want) {
		t.Errorf("after the restart: phase %q, events %v", b.phase, b.events)
	}
}

func becomeReady(t *testing.T, b *bootService, n *node) {
	t.Helper()
	for _, unit := range []string{"containerd", "etcd", "kube-apiserver"} {
		n.pid1.units <- &nodev1.Unit{Name: unit, State: "starting"}
		b.await(unit+" starting", func() bool { return b.phase == "joining" && b.waiting == "unit "+unit+" to be ready" })
		n.pid1.units <- &nodev1.Unit{Name: unit, State: "ready", SinceBootMs: 5000}
	}
	b.await("the apiserver", func() bool { return slices.Contains(b.events, "apiserver") })
	if err := os.WriteFile(filepath.Join(n.runtime, registeredMark), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.await("the registration", func() bool { return slices.Contains(b.events, "registered") })
	n.pid1.units <- &nodev1.Unit{Name: "node", State: "ready", SinceBootMs: 6000}
	b.await("Ready", func() bool { return b.phase == "ready" && slices.Contains(b.events, "ready") })
}

// TestDisksAreToldBeforeThereIsACluster: a machine that waits for its approval
// tells what it has found meanwhile, and one that is approved does in its reports.
func TestDisksAreToldBeforeThereIsACluster(t *testing.T) {
	b := newBootService(t)
	n := newNode(t, b)
	var root rootNow
	root.become(machineOf(nil))
	n.files = &root
	n.start(t)
	b.await("an enrolment without disks", func() bool { return len(b.enrolments) > 0 && len(b.enrolments[0].Facts.Disks) == 0 })
	root.become(machineOf(map[string]string{"vda": "1"}))
	b.await("one with a disk", func() bool { return len(b.enrolments[len(b.enrolments)-1].Facts.Disks) == 1 })
	b.update(func() { b.approved = true })
	b.await("a report with it", func() bool { return len(b.facts.GetDisks()) == 1 })
}

// TestWrongPin: a machine tells nothing to a server that is not the one that
// started it, and says on the console what it expected.
func TestWrongPin(t *testing.T) {
	b := newBootService(t)
	n := newNode(t, b)
	n.args.CA = sha256.Sum256([]byte("another CA"))
	n.start(t)
	seen := sha256.Sum256(b.ca.cert.Raw)
	for _, want := range []string{"expected the CA pin " + hex.EncodeToString(n.args.CA[:]), hex.EncodeToString(seen[:]), "tries again in"} {
		awaitScreen(t, n, want)
	}
	if *b.requests != 0 {
		t.Errorf("%d requests reached the server", *b.requests)
	}
}

func awaitScreen(t *testing.T, n *node, want string) {
	t.Helper()
	if !eventually(func() bool { return strings.Contains(n.screen.String(), want) }) {
		t.Fatalf("the console does not show %q:\n%s", want, n.screen)
	}
}

// eventually looks until it sees something, or loses its patience.
func eventually(seen func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < patience; <-tick.C {
		if seen() {
			return true
		}
	}
	return false
}

// TestServerRestart: the boot service goes away while the key waits, and comes back.
func TestServerRestart(t *testing.T) {
	b := newBootService(t)
	n := newNode(t, b)
	n.start(t)
	b.await("an enrolment", func() bool { return len(b.enrolments) > 0 })
	b.stop()
	awaitScreen(t, n, "waiting for the boot service "+b.addr)
	b.approved, b.config = true, exampleConfig(t)
	b.start()
	<-n.pid1.applied
	b.await("the receipt", func() bool { return b.acks == 1 })
	if first, last := b.enrolments[0], b.enrolments[len(b.enrolments)-1]; !slices.Equal(first.Csr, last.Csr) {
		t.Error("the key changed over the restart")
	}
}

// TestLostAnswer: the config was on its way and did not arrive. It is fetched
// once more, and acknowledged once it is stored.
func TestLostAnswer(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config, b.loseFetch = true, exampleConfig(t), 1
	n := newNode(t, b)
	n.start(t)
	<-n.pid1.applied
	b.await("the receipt", func() bool { return b.acks == 1 })
	if b.fetches != 2 {
		t.Errorf("%d fetches, want 2", b.fetches)
	}
}

// TestPrepares: while there is no config, what every node runs is started, once.
func TestPrepares(t *testing.T) {
	b := newBootService(t)
	b.approved, b.prepare = true, true
	n := newNode(t, b)
	n.start(t)
	for _, name := range []string{"containerd", "images"} {
		n.pid1.units <- &nodev1.Unit{Name: name, State: "starting"}
		b.mu.Lock()
		if b.prepared {
			t.Errorf("prepared before %s is ready", name)
		}
		b.mu.Unlock()
		n.pid1.units <- &nodev1.Unit{Name: name, State: "ready"}
	}
	b.await("a machine that is prepared", func() bool { return b.prepared })
	b.update(func() { b.config = exampleConfig(t) })
	<-n.pid1.applied
	if times := n.pid1.prepared.Load(); times != 1 {
		t.Errorf("prepared %d times", times)
	}
}

// TestNewKey: a key that is of no use any more is replaced.
func TestNewKey(t *testing.T) {
	for name, set := range map[string]func(*bootService){
		"key refused":      func(b *bootService) { b.refuseKeys = 1 },
		"config delivered": func(b *bootService) { b.delivered = true },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBootService(t)
			b.approved, b.config = true, exampleConfig(t)
			set(b)
			n := newNode(t, b)
			n.start(t)
			b.await("a second enrolment", func() bool { return len(b.enrolments) >= 2 })
			b.update(func() { b.delivered = false })
			<-n.pid1.applied
			if slices.Equal(b.enrolments[0].Csr, b.enrolments[len(b.enrolments)-1].Csr) {
				t.Error("the key is the same")
			}
			awaitScreen(t, n, "makes a new key and enrols again")
		})
	}
}

// TestNodeAPI: who may call what, over TLS.
func TestNodeAPI(t *testing.T) {
	b := newBootService(t)
	b.approved = true
	n := newNode(t, b)
	n.start(t)
	b.await("a fetch", func() bool { return b.fetches > 0 })

	other := newCA(t)
	for _, tt := range []struct {
		name           string
		cert           *tls.Certificate
		status, reboot connect.Code // 0: allowed
		says           string
	}{
		{"no certificate", nil, connect.CodeUnauthenticated, connect.CodeUnauthenticated, "needs a client certificate"},
		{"a foreign one", pair(t, other, "slipway:admin"), connect.CodeUnauthenticated, connect.CodeUnauthenticated, "not one of this machine's boot service"},
		{"a machine", pair(t, b.ca, "slipway:machine"), connect.CodePermissionDenied, connect.CodePermissionDenied, "it has slipway:machine"},
		{"a reader", pair(t, b.ca, reader), 0, connect.CodePermissionDenied, "allowed: slipway:operator, slipway:admin"},
		{"an operator", pair(t, b.ca, operator), 0, 0, ""},
		{"an administrator", pair(t, b.ca, admin), 0, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := nodeClient(t, n, b.ca, tt.cert)
			_, err := client.Status(t.Context(), connect.NewRequest(&nodev1.StatusRequest{}))
			checkCode(t, "Status", err, tt.status, "")
			_, err = client.Reboot(t.Context(), connect.NewRequest(&nodev1.RebootRequest{}))
			checkCode(t, "Reboot", err, tt.reboot, tt.says)
		})
	}
	logs, err := nodeClient(t, n, b.ca, pair(t, b.ca, reader)).Logs(t.Context(), connect.NewRequest(&nodev1.LogsRequest{Unit: "etcd"}))
	if err != nil || !logs.Receive() || logs.Msg().Text != "a line of etcd" || logs.Receive() || logs.Err() != nil {
		t.Errorf("Logs: %v, %v", err, logs.Err())
	}
}

func pair(t *testing.T, ca *testCA, organization string) *tls.Certificate {
	cert := ca.pair(t, "somebody", organization)
	return &cert
}

func checkCode(t *testing.T, call string, err error, want connect.Code, says string) {
	t.Helper()
	switch {
	case want == 0 && err != nil:
		t.Errorf("%s: %v", call, err)
	case want != 0 && connect.CodeOf(err) != want:
		t.Errorf("%s: %v, want %s", call, err, want)
	case want != 0 && !strings.Contains(err.Error(), says):
		t.Errorf("%s says %q, want %q in it", call, err, says)
	}
}

func nodeClient(t *testing.T, n *node, ca *testCA, cert *tls.Certificate) nodev1connect.NodeServiceClient {
	t.Helper()
	return nodev1connect.NewNodeServiceClient(tlsClient(t, ca, cert), "https://"+n.listen)
}

func tlsClient(t *testing.T, ca *testCA, cert *tls.Certificate) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	config := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"} // what the CA of the tests certifies
	if cert != nil {                                              // shown whatever CAs the server names
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
