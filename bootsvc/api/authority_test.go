package api

import (
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/api/client"
	"slipway/bootsvc/enroll"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

// context writes a person's context file.
func (s *site) context(t *testing.T, name string, role Role) string {
	t.Helper()
	leaf, err := s.ca.Issue(pki.Request{CommonName: name, Organizations: []string{string(role)}, Client: true, Validity: 24 * time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := client.Context{
		Servers: []string{s.url}, CA: string(s.ca.CertPEM), Certificate: string(leaf.CertPEM), Key: secret.New(string(leaf.KeyPEM)),
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// use is a command of a person: it asks how the CA is.
func use(t *testing.T, path string) (*bootv1.Authority, error) {
	t.Helper()
	c, err := client.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := c.New()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := boot.Authority.GetAuthority(t.Context(), connect.NewRequest(&bootv1.GetAuthorityRequest{}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.GetAuthority(), nil
}

// TestContextsFollowTheCA: whatever command a person uses, the context gets what
// it needs in each phase; one that is not used is named, and refused in the end.
func TestContextsFollowTheCA(t *testing.T) {
	site := start(t, enroll.Rules{})
	ann, bob, eve := site.context(t, "ann", Admin), site.context(t, "bob", Reader), site.context(t, "eve", Operator)
	list(t, bob)
	boot := func() *client.Client {
		t.Helper()
		c, err := client.Load(ann)
		if err != nil {
			t.Fatal(err)
		}
		boot, err := c.New()
		if err != nil {
			t.Fatal(err)
		}
		return boot
	}
	phase := func(want string) *bootv1.Authority {
		t.Helper()
		for range 200 { // the service follows its store, a moment later
			now, err := use(t, ann)
			if err != nil || now.GetPhase() != want {
				t.Fatalf("it is in %q, %v; want %q", now.GetPhase(), err, want)
			}
			if c, err := client.Load(ann); err == nil && strings.TrimSpace(c.CA) == strings.TrimSpace(string(now.GetTrusted())) {
				return now
			}
		}
		t.Fatalf("in %q, the context never gets the CAs", want)
		return nil
	}
	turn := func() {
		t.Helper()
		if err := site.server.Office.TurnAuthority(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := boot().Authority.RetireAuthority(t.Context(), connect.NewRequest(&bootv1.RetireAuthorityRequest{}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("nothing retires before it begins: %v", err)
	}
	before := phase("")
	for range 2 { // the second begins nothing new
		if _, err := boot().Authority.RotateAuthority(t.Context(), connect.NewRequest(&bootv1.RotateAuthorityRequest{})); err != nil {
			t.Fatal(err)
		}
	}
	now := phase("use") // nobody is waited for in phase trust: there is no machine
	if now.GetHash() == before.GetHash() || len(now.GetWaiting()) == 0 {
		t.Fatalf("%+v", now)
	}
	now = phase("use")
	if w := now.GetWaiting(); len(w) != 1 || w[0].GetName() != "bob (reader)" || !w[0].GetMissing() || w[0].GetAfter() == "" {
		t.Errorf("it waits for %v, want bob", w)
	}
	list(t, bob)
	list(t, bob)
	turn()
	phase("")
	list(t, bob)
	_, err = use(t, eve)
	if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "was rotated") {
		t.Errorf("a context that missed it all: %v", err)
	}
}

// TestIssue: only what a person may be is issued, and only to a key that is there.
func TestIssue(t *testing.T) {
	site := start(t, enroll.Rules{})
	admin := bootv1connect.NewAuthorityServiceClient(site.person(t, Admin), site.url)
	key, _, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(pkix.Name{CommonName: "whoever"}, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		request *bootv1.IssueCredentialsRequest
		want    string // in the error
	}{
		"good":      {&bootv1.IssueCredentialsRequest{Name: "ann.b-2", Role: "operator", Csr: csr}, ""},
		"a machine": {&bootv1.IssueCredentialsRequest{Name: "ann", Role: "machine", Csr: csr}, "admin, operator, reader"},
		"no role":   {&bootv1.IssueCredentialsRequest{Name: "ann", Csr: csr}, "admin, operator, reader"},
		"no name":   {&bootv1.IssueCredentialsRequest{Role: "reader", Csr: csr}, "not a person's name"},
		"odd name":  {&bootv1.IssueCredentialsRequest{Name: "ann\n", Role: "reader", Csr: csr}, "not a person's name"},
		"long name": {&bootv1.IssueCredentialsRequest{Name: strings.Repeat("a", 64), Role: "reader", Csr: csr}, "not a person's name"},
		"no key":    {&bootv1.IssueCredentialsRequest{Name: "ann", Role: "reader"}, "certificate request"},
		"forged":    {&bootv1.IssueCredentialsRequest{Name: "ann", Role: "reader", Csr: csr[:len(csr)-2]}, "certificate request"},
	} {
		answer, err := admin.IssueCredentials(t.Context(), connect.NewRequest(test.request))
		if test.want != "" {
			if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %q", name, err, test.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		cert, err := pki.ParseCert(answer.Msg.GetCertificate())
		if err != nil || cert.Subject.CommonName != "ann.b-2" || !slices.Equal(cert.Subject.Organization, []string{string(Operator)}) || !key.PublicKey.Equal(cert.PublicKey) {
			t.Errorf("%s: %v, %v", name, cert.Subject, err)
		}
	}
}

// TestRetiringWithoutWhoIsMissing: a person's word ends the wait.
func TestRetiringWithoutWhoIsMissing(t *testing.T) {
	site := start(t, enroll.Rules{})
	list(t, site.context(t, "bob", Reader))
	admin := bootv1connect.NewAuthorityServiceClient(site.person(t, Admin), site.url)
	if _, err := admin.RotateAuthority(t.Context(), connect.NewRequest(&bootv1.RotateAuthorityRequest{})); err != nil {
		t.Fatal(err)
	}
	answer, err := admin.RetireAuthority(t.Context(), connect.NewRequest(&bootv1.RetireAuthorityRequest{}))
	if err != nil || answer.Msg.GetAuthority().GetPhase() != "" {
		t.Errorf("%v, %v", answer, err)
	}
}
