package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/client"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// fakeNode is a node's API by hand.
type fakeNode struct {
	nodev1connect.UnimplementedNodeServiceHandler
	asked    *nodev1.LogsRequest
	rebooted *nodev1.RebootRequest
}

func (f *fakeNode) Status(context.Context, *connect.Request[nodev1.StatusRequest]) (*connect.Response[nodev1.StatusResponse], error) {
	since := timestamppb.New(time.Now().Add(-90 * time.Second))
	return connect.NewResponse(&nodev1.StatusResponse{
		Hostname: "demo-cp-1", Role: "control-plane", Cluster: "demo", Version: "v0.1.0", Kernel: "6.12.117",
		UptimeMs: 125_400, MemoryTotal: 2 << 30, MemoryAvailable: 900 << 20,
		Units: []*nodev1.Unit{
			{Name: "etcd", State: "ready", Since: since, Pid: 42, Memory: 60 << 20},
			{Name: "kube-apiserver", State: "backoff", Since: since, Restarts: 3, WaitingFor: "restart in 2s", LastError: "exit status 1"},
		},
	}), nil
}

func (f *fakeNode) Logs(_ context.Context, r *connect.Request[nodev1.LogsRequest], out *connect.ServerStream[nodev1.LogLine]) error {
	f.asked = r.Msg
	if r.Msg.Unit != "etcd" {
		return connect.NewError(connect.CodeNotFound, errors.New("no unit "+r.Msg.Unit))
	}
	at := timestamppb.New(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
	return errors.Join(out.Send(&nodev1.LogLine{Time: at, Text: "first"}), out.Send(&nodev1.LogLine{Time: at, Text: "second"}))
}

func (f *fakeNode) Reboot(_ context.Context, r *connect.Request[nodev1.RebootRequest]) (*connect.Response[nodev1.RebootResponse], error) {
	f.rebooted = r.Msg
	return connect.NewResponse(&nodev1.RebootResponse{}), nil
}

// startNode serves f over mutual TLS; it returns its address and a context file for it.
func startNode(t *testing.T, f *fakeNode) (addr, contextFile string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewNodeServiceHandler(f))
	addrs, contextFile := startRack(t, http.NotFoundHandler(), mux)
	return addrs[0], contextFile
}

// startRack serves a boot service and nodes over mutual TLS; it returns the
// nodes' addresses and a context file for all of them.
func startRack(t *testing.T, boot http.Handler, nodes ...http.Handler) (addrs []string, contextFile string) {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(r pki.Request) pki.Leaf {
		r.Validity = time.Hour
		leaf, err := ca.Issue(r, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertPEM)
	serve := func(handler http.Handler) string {
		server := issue(pki.Request{CommonName: "server", Server: true, DNSNames: []string{client.ServerName}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
		pair, err := tls.X509KeyPair(server.CertPEM, server.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(handler)
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	for _, n := range nodes {
		addrs = append(addrs, serve(n))
	}
	person := issue(pki.Request{CommonName: "ann", Client: true})
	text, err := client.Context{
		Servers: []string{"https://" + serve(boot)}, CA: string(ca.CertPEM),
		Certificate: string(person.CertPEM), Key: secret.New(string(person.KeyPEM)),
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	contextFile = filepath.Join(t.TempDir(), "context.yaml")
	if err := os.WriteFile(contextFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return addrs, contextFile
}

func TestNodeCommands(t *testing.T) {
	f := &fakeNode{}
	addr, contextFile := startNode(t, f)
	for _, tt := range []struct {
		args string
		code int
		want string // NODE stands for the address
	}{
		{args: "status NODE", want: `Hostname          demo-cp-1
Role              control-plane
Cluster           demo
Slipway           v0.1.0
Kernel            6.12.117
Up for            2m5s
Memory            2.0 GiB, 900 MiB of it available
Runs from         RAM
Units             1 of 2 ready
  kube-apiserver  backoff restart in 2s; exit status 1
`},
		{args: "services NODE", want: `UNIT            STATE    FOR    RESTARTS  PID  MEMORY  CPU  WAITING FOR
etcd            ready    1m30s  0         42   60 MiB  0s   -
kube-apiserver  backoff  1m30s  3         -    -       0s   restart in 2s; exit status 1
`},
		{args: "logs NODE etcd --tail 2", want: "first\nsecond\n"},
		{args: "logs NODE etcd -o json", want: `{"time":"2026-11-20T09:00:00Z","text":"first"}
{"time":"2026-11-20T09:00:00Z","text":"second"}
`},
		{args: "logs NODE etcd --timestamps", want: "2026-11-20T09:00:00Z first\n2026-11-20T09:00:00Z second\n"},
		{args: "logs NODE nosuch", code: 1, want: "slipway: no unit nosuch\n"},
		{args: "reboot NODE --yes --power-off", want: "Node NODE is shutting down.\n"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields("node " + strings.ReplaceAll(tt.args, "NODE", addr) + " --context " + contextFile)
			var out bytes.Buffer
			code := run(t.Context(), args, strings.NewReader(""), &out, &out)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if diff := cmp.Diff(strings.ReplaceAll(tt.want, "NODE", addr), out.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if f.rebooted == nil || !f.rebooted.PowerOff {
		t.Errorf("reboot asked for %v", f.rebooted)
	}
}

func TestNodeStatusAsJSON(t *testing.T) {
	addr, contextFile := startNode(t, &fakeNode{})
	var out bytes.Buffer
	if code := run(t.Context(), []string{"node", "services", addr, "-o", "json", "--context", contextFile}, nil, &out, &out); code != 0 {
		t.Fatalf("exit code %d: %s", code, out.String())
	}
	if !strings.Contains(out.String(), `"name": "etcd"`) && !strings.Contains(out.String(), `"name":  "etcd"`) {
		t.Errorf("got %s", out.String())
	}
}
