package worker

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/configs/secret"
	"slipway/controlplane/apiclient/apitest"
	"slipway/controlplane/leaf"
	"slipway/controlplane/pki"
)

func newTestCA(t *testing.T, name string) pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name, time.Now(), 100*time.Hour)
	must(t, err)
	return ca
}

// held is a certificate of a node with its key, PEM, whose life of an hour began then.
func held(t *testing.T, ca pki.CA, hostname string, began time.Time) string {
	t.Helper()
	request := pki.Request{CommonName: "system:node:" + hostname, Client: true, Validity: time.Hour}
	made, err := ca.Issue(request, began)
	must(t, err)
	return string(made.CertPEM) + string(made.KeyPEM)
}

func certificateOf(text string) string { return text[:strings.Index(text, "-----BEGIN EC")] }
func keyOf(text string) string         { return text[strings.Index(text, "-----BEGIN EC"):] }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPresentCertificate(t *testing.T) {
	before, now := newTestCA(t, "before"), newTestCA(t, "now")
	began := time.Now()
	good := held(t, now, "a", began)
	for name, test := range map[string]struct {
		file string
		ca   string // besides the one that signs now
		want string // within the error; empty: it is good
	}{
		"as it should be":             {good, "", ""},
		"another CA is trusted too":   {good, string(before.CertPEM), ""},
		"signed by the other CA":      {held(t, before, "a", began), string(before.CertPEM), "before signed it, and now signs now"},
		"signed by a CA that is gone": {held(t, before, "a", began), "", "before signed it"},
		"of another name":             {held(t, now, "b", began), "", "it is of system:node:b, and this is system:node:a"},
		"ended":                       {held(t, now, "a", began.Add(-2*time.Hour)), "", "it ended at"},
		"of a clock that was ahead":   {held(t, now, "a", began.Add(time.Hour)), "", "it begins at"},
		"half of it":                  {good[:len(good)/2], "", "PEM"},
		"of another key":              {certificateOf(good) + keyOf(held(t, now, "a", began)), "", "private key does not match"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &certificate{Path: filepath.Join(t.TempDir(), "client.pem"), Hostname: "a", CA: string(now.CertPEM) + test.ca}
			if _, err := c.present(began); !os.IsNotExist(err) {
				t.Errorf("without a file: %v", err)
			}
			must(t, os.WriteFile(c.Path, []byte(test.file), 0o600))
			_, err := c.present(began)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// signer is an API server and its controller manager, which answers a request
// step by step.
type signer struct {
	t       *testing.T
	ca      pki.CA
	verdict string // the type of the condition that a request gets
	asked   []signingRequest
	looks   int
}

const token = "abcdef.0123456789abcdef"

func (s *signer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodPost && r.URL.Path == requests {
		var asked signingRequest
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			s.t.Error(err)
		}
		s.asked, s.looks = append(s.asked, asked), 0
		return
	}
	asked := s.asked[len(s.asked)-1]
	if r.URL.Path != requests+"/"+asked.Metadata.Name {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if s.looks++; s.looks > 1 {
		asked.Status.Conditions = append(asked.Status.Conditions, struct{ Type, Reason, Message string }{s.verdict, "Test", "as told"})
	}
	if s.looks > 2 {
		asked.Status.Certificate = s.sign(asked)
	}
	json.NewEncoder(w).Encode(asked)
}

// sign does as Kubernetes: the names are the request's.
func (s *signer) sign(asked signingRequest) []byte {
	block, _ := pem.Decode(asked.Spec.Request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		s.t.Error(err)
		return nil
	}
	made, err := s.ca.Sign(csr.PublicKey, pki.Request{
		CommonName: csr.Subject.CommonName, Organizations: csr.Subject.Organization, Client: true, Validity: time.Hour,
	}, time.Now())
	if err != nil {
		s.t.Error(err)
	}
	return made
}

// newSigner is an API server whose controller manager signs with ca, and a
// certificate of node a that wants those of now.
func newSigner(t *testing.T, ca, now pki.CA, verdict string) (*signer, *certificate) {
	s := &signer{t: t, ca: ca, verdict: verdict}
	access := apitest.Serve(t, s)
	server, err := os.ReadFile(access.CAFile)
	must(t, err)
	return s, &certificate{
		Path: filepath.Join(t.TempDir(), "pki", "client.pem"), Hostname: "a", Server: access.Server,
		CA: string(now.CertPEM) + string(server), Token: secret.New(token),
	}
}

// once runs a certificate until it is ready.
func once(t *testing.T, c *certificate) (ready bool, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = c.Run(ctx, func() { ready = true; cancel() })
	return ready, err
}

// TestCertificateIsAskedFor: the first one, and another once the CA is another or
// the machine's name is; a good one is kept.
func TestCertificateIsAskedFor(t *testing.T) {
	ca := newTestCA(t, "now")
	s, c := newSigner(t, ca, ca, "Approved")
	for n, change := range []func(){
		func() {},
		func() { c.Hostname = "b" },
		func() {
			next := newTestCA(t, "next")
			s.ca, c.CA = next, string(next.CertPEM)+c.CA
		},
	} {
		change()
		for range 2 {
			if ready, err := once(t, c); !ready || err != nil {
				t.Fatalf("ready: %v, %v", ready, err)
			}
		}
		if len(s.asked) != n+1 {
			t.Fatalf("%d requests after change %d", len(s.asked), n)
		}
		if _, err := c.present(time.Now()); err != nil {
			t.Error(err)
		}
	}
	asked := s.asked[0]
	if asked.Spec.SignerName != "kubernetes.io/kube-apiserver-client-kubelet" || !slices.Equal(asked.Spec.Usages, []string{"digital signature", "client auth"}) {
		t.Errorf("asked for %+v", asked.Spec)
	}
	if info, err := os.Stat(c.Path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
}

// TestCertificateOfTwoThirds is renewed; ready does not wait for that. It is an error
// that it fails only near its end.
func TestCertificateOfTwoThirds(t *testing.T) {
	ca := newTestCA(t, "now")
	s, c := newSigner(t, ca, ca, "Approved")
	began := time.Now()
	old := held(t, ca, "a", began)
	must(t, os.MkdirAll(filepath.Dir(c.Path), 0o755))
	must(t, os.WriteFile(c.Path, []byte(old), 0o600))
	for _, at := range []struct {
		age   time.Duration // of an hour, and the ten minutes by which it is backdated
		token string
		asked int
		err   bool
	}{{35 * time.Minute, token, 0, false}, {36 * time.Minute, "another", 0, false}, {49 * time.Minute, "another", 0, true}, {36 * time.Minute, token, 1, false}} {
		c.Token = secret.New(at.token)
		early := false
		again, err := c.look(t.Context(), began.Add(at.age), sync.OnceFunc(func() { early = len(s.asked) == 0 }))
		if (err != nil) != at.err || !early || len(s.asked) != at.asked || again != leaf.Look {
			t.Errorf("after %s: %v, ready before it asked: %v, asked %d times, again in %s", at.age, err, early, len(s.asked), again)
		}
	}
	if text, err := os.ReadFile(c.Path); err != nil || string(text) == old {
		t.Errorf("the old one is still there: %v", err)
	}
}

// TestCertificateRefused: what it waits for says why, and what is there stays.
func TestCertificateRefused(t *testing.T) {
	now, other := newTestCA(t, "now"), newTestCA(t, "other")
	for name, test := range map[string]struct {
		signs   pki.CA
		verdict string
		token   string
		again   time.Duration
		want    string
	}{
		"denied":        {now, "Denied", token, leaf.Look, "Denied (Test): as told"},
		"failed":        {now, "Failed", token, leaf.Look, "Failed (Test): as told"},
		"another CA":    {other, "Approved", token, leaf.Look, "other signed it, and now signs now"},
		"another token": {now, "Approved", "abcdef.fedcba9876543210", askAgain, "401"},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := newSigner(t, test.signs, now, test.verdict)
			c.Token = secret.New(test.token)
			old := held(t, other, "a", time.Now())
			must(t, os.MkdirAll(filepath.Dir(c.Path), 0o755))
			must(t, os.WriteFile(c.Path, []byte(old), 0o600))
			again, err := c.look(t.Context(), time.Now(), func() { t.Error("it is ready") })
			if err != nil || again != test.again || !strings.Contains(c.WaitingFor(), test.want) {
				t.Errorf("%v, again in %s, waiting for %q; want %q", err, again, c.WaitingFor(), test.want)
			}
			if left, err := os.ReadFile(c.Path); err != nil || string(left) != old {
				t.Errorf("the file has changed: %v", err)
			}
		})
	}
}
