package api

import (
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/enroll"
	"slipway/controlplane/pki"
)

// call calls a procedure of any kind, with an empty message.
func call(t *testing.T, web *http.Client, url, procedure string) error {
	t.Helper()
	client := connect.NewClient[emptypb.Empty, emptypb.Empty](web, url+procedure)
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(procedure, "/"), "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	switch method := found.(protoreflect.MethodDescriptor); {
	case method.IsStreamingClient():
		_, err = client.CallClientStream(t.Context()).CloseAndReceive()
	case method.IsStreamingServer():
		var stream *connect.ServerStreamForClient[emptypb.Empty]
		if stream, err = client.CallServerStream(t.Context(), connect.NewRequest(&emptypb.Empty{})); err == nil {
			for stream.Receive() {
			}
			err = stream.Err()
			stream.Close()
		}
	default:
		_, err = client.CallUnary(t.Context(), connect.NewRequest(&emptypb.Empty{}))
	}
	return err
}

// procedures are all that the API's description has.
func procedures() (names []string) {
	services := bootv1.File_bootsvc_api_bootv1_boot_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			names = append(names, "/"+string(services.Get(i).FullName())+"/"+string(methods.Get(j).Name()))
		}
	}
	return names
}

func TestTheAccessTableIsComplete(t *testing.T) {
	table := Access()
	for _, procedure := range procedures() {
		if len(table[procedure]) == 0 {
			t.Errorf("nobody may call %s", procedure)
		}
		delete(table, procedure)
	}
	for procedure := range table {
		t.Errorf("the table names %s, which does not exist", procedure)
	}
}

// TestEveryRoleOnEveryProcedure calls everything as everyone, over TLS. Whoever
// is allowed gets past the door: any answer but a refusal will do.
func TestEveryRoleOnEveryProcedure(t *testing.T) {
	s := start(t, enroll.Rules{})
	table := Access()
	// An admin comes last, and what it calls last has the CA retire that signed all certificates here.
	for _, role := range []Role{Anyone, Reader, Backup, Operator, Machine, "slipway:other", "system:masters", Admin} {
		web := s.as(t, nil)
		if role != Anyone {
			web = s.person(t, role)
		}
		for _, procedure := range procedures() {
			err := call(t, web, s.url, procedure)
			code := connect.CodeOf(err)
			refused := code == connect.CodeUnauthenticated || code == connect.CodePermissionDenied && strings.Contains(err.Error(), "needs the role")
			allowed := slices.Contains(table[procedure], role) || slices.Contains(table[procedure], Anyone)
			switch {
			case refused == allowed:
				t.Errorf("%q on %s: %v", role, procedure, err)
			case !allowed && role == Anyone && code != connect.CodeUnauthenticated:
				t.Errorf("no certificate on %s: %v", procedure, err)
			}
		}
	}
}

func TestCertificatesOfOthersAreRefused(t *testing.T) {
	s := start(t, enroll.Rules{})
	request := pki.Request{CommonName: "eve", Organizations: []string{string(Admin)}, Client: true}
	serverOnly := pki.Request{CommonName: "eve", Organizations: []string{string(Admin)}, Server: true}
	expired := pki.Request{CommonName: "ann", Organizations: []string{string(Admin)}, Client: true, Validity: time.Minute}
	leaf, err := s.ca.Issue(expired, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	old, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	for name, cert := range map[string]*tls.Certificate{
		"another CA's":             keyPair(t, newCA(t, "boot service"), request),
		"not a client's, but ours": keyPair(t, s.ca, serverOnly),
		"an expired one":           &old,
	} {
		client := bootv1connect.NewInventoryServiceClient(s.as(t, cert), s.url)
		_, err := client.ListMachines(t.Context(), connect.NewRequest(&bootv1.ListMachinesRequest{}))
		wantCode(t, name, err, connect.CodeUnauthenticated, "does not know the client certificate")
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	s := start(t, enroll.Rules{})
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, s.ca), MaxVersion: tls.VersionTLS12}}}
	if _, err := web.Get(s.url); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func TestMetricsAreForReaders(t *testing.T) {
	s := start(t, enroll.Rules{})
	for role, want := range map[Role]int{Anyone: 401, Machine: 403, Reader: 200, Operator: 200, Admin: 200} {
		web := s.as(t, nil)
		if role != Anyone {
			web = s.person(t, role)
		}
		answer, err := web.Get(s.url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%q: %s, want %d", role, answer.Status, want)
		}
	}
}

func TestCleanKeepsTerminalsSafe(t *testing.T) {
	for text, want := range map[string]string{
		"plain":          "plain",
		"\x1b[2Jwiped":   "?[2Jwiped",
		"two\nlines":     "two?lines",
		"bad \xff bytes": "bad ? bytes",
		"right\u202eto":  "right?to",
		"schön":          "schön",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := clean(strings.Repeat("ö", maxText)); len(got) > maxText+1 {
		t.Errorf("%d bytes are left", len(got))
	}
}

func TestBrokenHandshakesAreNamed(t *testing.T) {
	for line, want := range map[string][2]string{
		"http: TLS handshake error from 10.0.0.7:40000: EOF":                                {"10.0.0.7", "EOF"},
		"http: TLS handshake error from 10.0.0.7:40000: remote error: tls: bad certificate": {"10.0.0.7", "remote error: tls: bad certificate"},
		"http: Accept error: too many open files":                                           {"unknown", "http: Accept error: too many open files"},
	} {
		if source, problem := handshake(line); source != want[0] || problem != want[1] {
			t.Errorf("%s: %s, %s", line, source, problem)
		}
	}
}
