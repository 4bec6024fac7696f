package addons

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
)

// cluster is an API server that knows three kinds and notes what it is sent.
type cluster struct {
	mu       sync.Mutex
	requests []string
	refuse   int // so many patches are refused first
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/api/v1":
		io.WriteString(w, `{"resources":[{"name":"nodes/status","kind":"Node"},{"name":"nodes","kind":"Node"},{"name":"secrets","kind":"Secret","namespaced":true}]}`)
	case r.Method == http.MethodGet && r.URL.Path == "/apis/rbac.authorization.k8s.io/v1":
		io.WriteString(w, `{"resources":[{"name":"clusterroles","kind":"ClusterRole"}]}`)
	case r.Method == http.MethodPatch && c.refuse > 0:
		c.refuse--
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"namespaces \"kube-system\" not found"}`)
	case r.Method == http.MethodPatch:
		body, _ := io.ReadAll(r.Body)
		c.requests = append(c.requests, r.Header.Get("Content-Type")+" "+r.URL.String()+" "+string(body))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

const secretText = `apiVersion: v1
kind: Secret
metadata: {name: s, namespace: kube-system}`

const roleText = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "a:b"}`

func reconciler(t *testing.T, c *cluster, files map[string]string) *Reconciler {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &Reconciler{Dir: dir, Node: "cp-1", Access: apiclient.Access(apitest.Serve(t, c))}
}

func TestApply(t *testing.T) {
	c := &cluster{}
	r := reconciler(t, c, map[string]string{
		"20.yaml": roleText, "10.yaml": "# a comment\n---\n" + secretText + "\n---\n" + roleText, "not.txt": "x",
	})
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	const apply = "application/apply-patch+yaml "
	const query = "?fieldManager=slipway&force=true "
	secret := apply + "/api/v1/namespaces/kube-system/secrets/s" + query + secretText
	role := apply + "/apis/rbac.authorization.k8s.io/v1/clusterroles/a:b" + query + roleText
	if diff := cmp.Diff([]string{secret, role, role}, c.requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestChangedFilesAreSeen(t *testing.T) {
	r := reconciler(t, &cluster{}, map[string]string{"10.yaml": secretText})
	path := filepath.Join(r.Dir, "10.yaml")
	for _, text := range []string{secretText, secretText + "\nstringData: {token-secret: another}"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if !r.changed() {
			t.Error("a change is not seen")
		}
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r.changed() {
			t.Error("what was applied counts as changed")
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if !r.changed() {
		t.Error("a file that went is not seen")
	}
}

func TestMark(t *testing.T) {
	c := &cluster{}
	if err := reconciler(t, c, nil).mark(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"application/merge-patch+json /api/v1/nodes/cp-1 " + role}
	if diff := cmp.Diff(want, c.requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestApplyErrors(t *testing.T) {
	tests := map[string]string{
		"apiVersion: v1\nkind: Secret":                        "lacks apiVersion, kind or metadata.name",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}":   "lacks metadata.namespace",
		"apiVersion: v1\nkind: Car\nmetadata: {name: s}":      "no kind Car in v1",
		"apiVersion: cars/v1\nkind: Car\nmetadata: {name: s}": "apply Car s: GET /apis/cars/v1: not found",
		"{": "10.yaml",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\nkind: Secret\nx: 1": "lacks apiVersion",
	}
	for text, want := range tests {
		err := reconciler(t, &cluster{}, map[string]string{"10.yaml": text}).Apply(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Apply of %q = %v, want %q", text, err, want)
		}
	}
}

// TestRunTriesAgain: a new API server refuses at first; ready comes after the
// first success.
func TestRunTriesAgain(t *testing.T) {
	c := &cluster{refuse: 2}
	r := reconciler(t, c, map[string]string{"10.yaml": secretText})
	ctx, cancel := context.WithCancel(t.Context())
	if err := r.Run(ctx, cancel); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.WaitingFor(), `namespaces "kube-system" not found`) {
		t.Errorf("it said that it waits for %q", r.WaitingFor())
	}
	if len(c.requests) != 1 || c.refuse != 0 {
		t.Errorf("%d applied, %d refusals left", len(c.requests), c.refuse)
	}
}

// TestTrouble: what fails now and then goes on; what fails for too long ends it.
func TestTrouble(t *testing.T) {
	failed, start := errors.New("refused"), time.Unix(0, 0)
	tests := map[string]struct {
		tries []error // a minute apart
		want  error   // of the last
	}{
		"a success":               {[]error{nil}, nil},
		"a failure":               {[]error{failed}, nil},
		"for a minute":            {[]error{failed, failed}, nil},
		"for two minutes":         {[]error{failed, failed, failed}, failed},
		"with a success between":  {[]error{failed, nil, failed, failed}, nil},
		"again after the success": {[]error{failed, nil, failed, failed, failed}, failed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var trouble trouble
			var got error
			for i, err := range test.tries {
				got = trouble.after(start.Add(time.Duration(i)*time.Minute), err)
			}
			if got != test.want {
				t.Errorf("after the last: %v, want %v", got, test.want)
			}
		})
	}
}

// TestFailedApplyIsTriedAgain: its files count as changed, though they are the same.
func TestFailedApplyIsTriedAgain(t *testing.T) {
	c := &cluster{}
	r := reconciler(t, c, map[string]string{"10.yaml": secretText})
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.refuse = 1
	if err := r.Apply(t.Context()); err == nil || !r.changed() {
		t.Errorf("Apply = %v, changed %v; want an error, and another try", err, r.changed())
	}
	if err := r.Apply(t.Context()); err != nil || r.changed() {
		t.Errorf("Apply = %v, changed %v; want neither", err, r.changed())
	}
}

// TestAnotherToken: with a new bootstrap token it is another service, which
// applies it at once.
func TestAnotherToken(t *testing.T) {
	cfg, id := &machine.Config{}, machine.Identity{Hostname: "cp-1"}
	cfg.Cluster.ServiceSubnet = netip.MustParsePrefix("10.96.0.0/16")
	service := func(token string) *Reconciler {
		cfg.Cluster.BootstrapToken = secret.New(token)
		return Units(cfg, id)[0].Service.(*Reconciler)
	}
	if one := service("abcdef.1"); one.Equal(service("abcdef.2")) || !one.Equal(service("abcdef.1")) {
		t.Error("services are equal when they apply the same, and only then")
	}
}
