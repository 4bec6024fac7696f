package atrest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
	"slipway/nodeinit/supervise"
)

// server is an API server with Secrets that are one number long.
type server struct {
	mu       sync.Mutex
	hash     string // of the keys it has loaded
	after    int    // how often it is asked for it before it says so
	versions map[string]int
	written  []string
	conflict map[string]int // how often a PUT meets another's
	gone     int            // how often a continued list is refused
	listed   []string       // the tokens asked for
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.URL.Path == "/metrics":
		s.metrics(w)
	case r.URL.Path == "/api/v1/secrets":
		s.list(w, r)
	case r.Method == http.MethodPut:
		s.put(w, r)
	default:
		s.get(w, r)
	}
}

func (s *server) metrics(w http.ResponseWriter) {
	hash := "old"
	if s.after--; s.after < 0 {
		hash = s.hash
	}
	fmt.Fprintf(w, "# HELP x\nlast_config_info{apiserver_id_hash=\"a\",hash=\"%s\"} 1\n", hash)
}

// list gives two at a time; the token is the number of the next.
func (s *server) list(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("continue")
	s.listed = append(s.listed, token)
	if token != "" && s.gone > 0 {
		s.gone--
		w.WriteHeader(http.StatusGone)
		return
	}
	var names []string
	for name := range s.versions {
		names = append(names, name)
	}
	slices.Sort(names)
	from := 0
	fmt.Sscan(token, &from)
	var answer list
	for _, name := range names[from:min(from+2, len(names))] {
		item := answer.Items[:0:0]
		item = append(item, struct {
			Metadata struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
			} `json:"metadata"`
		}{})
		item[0].Metadata.Namespace, item[0].Metadata.Name = "n", name
		answer.Items = append(answer.Items, item...)
	}
	if from+2 < len(names) {
		answer.Metadata.Continue = fmt.Sprint(from + 2)
	}
	json.NewEncoder(w).Encode(answer)
}

type object struct {
	Name            string `json:"name"`
	ResourceVersion int    `json:"resourceVersion"`
	Data            string `json:"data"`
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	name := filepath.Base(r.URL.Path)
	version, there := s.versions[name]
	if !there || name == "vanishes" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	json.NewEncoder(w).Encode(object{name, version, "data of " + name})
}

func (s *server) put(w http.ResponseWriter, r *http.Request) {
	var got object
	json.NewDecoder(r.Body).Decode(&got)
	if s.conflict[got.Name] > 0 {
		s.conflict[got.Name]--
		s.versions[got.Name]++
	}
	if got.ResourceVersion != s.versions[got.Name] {
		w.WriteHeader(http.StatusConflict)
		return
	}
	s.versions[got.Name]++
	s.written = append(s.written, got.Name+": "+got.Data)
	io.WriteString(w, "{}")
}

func newService(t *testing.T, s *server, rewrite bool) *Service {
	t.Helper()
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(path, []byte("keys"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.hash = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("keys")))
	return &Service{Rewrite: rewrite, File: path, Access: apiclient.Access(apitest.Serve(t, s))}
}

func run(t *testing.T, s *Service) (ready bool, err error) {
	t.Helper()
	err = s.Run(t.Context(), func() { ready = true })
	return ready, err
}

func TestRewritesEachOnce(t *testing.T) {
	api := &server{
		versions: map[string]int{"a": 1, "b": 5, "c": 1, "d": 1, "vanishes": 1}, conflict: map[string]int{"b": 3}, gone: 1,
	}
	service := newService(t, api, true)
	if ready, err := run(t, service); err != nil || !ready {
		t.Fatalf("Run = %v, ready %v", err, ready)
	}
	slices.Sort(api.written)
	if got := strings.Join(slices.Compact(api.written), ", "); got != "a: data of a, b: data of b, c: data of c, d: data of d" {
		t.Errorf("written: %s", got)
	}
	if got := fmt.Sprintf("%q", api.listed); got != `["" "2" "" "2" "4"]` {
		t.Errorf("listed: %s", got)
	}
	if !strings.HasPrefix(service.WaitingFor(), "Secrets to be rewritten: ") {
		t.Errorf("it waited for %q", service.WaitingFor())
	}
}

func TestAlwaysChanged(t *testing.T) {
	api := &server{versions: map[string]int{"a": 1}, conflict: map[string]int{"a": 100}}
	ready, err := run(t, newService(t, api, true))
	if ready || !errors.Is(err, errMoved) || !strings.Contains(err.Error(), "rewrite Secret n/a") {
		t.Errorf("Run = %v, ready %v", err, ready)
	}
}

// TestWaitsForTheKeys: nothing is written before the API server has the keys.
func TestWaitsForTheKeys(t *testing.T) {
	api := &server{versions: map[string]int{"a": 1}, after: 1}
	if ready, err := run(t, newService(t, api, false)); err != nil || !ready || api.after != -1 || api.written != nil {
		t.Errorf("Run = %v, ready %v, after %d, written %q", err, ready, api.after, api.written)
	}
}

func TestUnits(t *testing.T) {
	key := func(name string) machine.EncryptionKey {
		return machine.EncryptionKey{Name: name, Secret: secret.New(name)}
	}
	units := func(rewrite bool, keys ...machine.EncryptionKey) []supervise.Unit {
		return Units(&machine.Config{ControlPlaneKeys: &machine.ControlPlaneKeys{EncryptionKeys: keys, RewriteSecrets: rewrite}})
	}
	if got := units(false, key("a")); got != nil {
		t.Errorf("one key, nothing to do: %v", got)
	}
	added, first, rewrite := units(false, key("a"), key("b")), units(false, key("b"), key("a")), units(true, key("b"), key("a"))
	service := added[0].Service.(*Service)
	if service.Equal(first[0].Service) || first[0].Service.(*Service).Equal(rewrite[0].Service) {
		t.Error("another step of the replacement is the same service: it would not run again")
	}
	if !service.Equal(units(false, key("a"), key("b"))[0].Service) {
		t.Error("the same step is another service")
	}
}
