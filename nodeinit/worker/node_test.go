package worker

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
	"slipway/nodeinit/supervise"
)

// registry is an API server whose answers about the Node follow a script: one
// for each look, the last for ever.
type registry struct {
	mu      sync.Mutex
	script  []string
	answers []string // what the node's files were at each look
	dir     string
}

func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request.URL.Path != "/api/v1/nodes/prod-1" {
		http.Error(w, "wrong path", http.StatusBadRequest)
		return
	}
	r.answers = append(r.answers, strings.Join(list(r.dir), " "))
	text := r.script[0]
	if len(r.script) > 1 {
		r.script = r.script[1:]
	}
	switch text {
	case "":
		w.WriteHeader(http.StatusNotFound)
	case away:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	w.Write([]byte(text))
}

// away is the answer of an API server without its etcd.
const away = `{"message":"etcd does not answer"}`

func list(dir string) (names []string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

// TestFollower: each step of joining has its effect before the next look, and
// the unit is ready when the Node is.
func TestFollower(t *testing.T) {
	dir := t.TempDir()
	server := &registry{dir: dir, script: []string{
		"",
		`{"metadata":{"uid":"u1"}}`,
		`{"metadata":{"uid":"u1"},"spec":{"podCIDR":"10.244.0.0/24"},"status":{"conditions":[{"type":"Ready","status":"False","message":"no network"}]}}`,
		`{"metadata":{"uid":"u1"},"spec":{"podCIDR":"10.244.0.0/24"},"status":{"conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"True"}]}}`,
	}}
	f := &follower{
		Hostname: "prod-1", Access: apiclient.Access(apitest.Serve(t, server)),
		Registered: filepath.Join(dir, "registered"), CNIDir: dir,
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := f.Run(ctx, cancel); err != nil {
		t.Fatal(err)
	}
	want := []string{"", "", "registered", "10-slipway.conflist registered"}
	for i := range want {
		if i >= len(server.answers) || server.answers[i] != want[i] {
			t.Fatalf("files at each look: %q, want %q", server.answers, want)
		}
	}
	checkNetwork(t, filepath.Join(dir, "10-slipway.conflist"))
}

func checkNetwork(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Plugins []struct {
			Bridge string
			IPAM   struct{ Ranges [][]struct{ Subnet string } }
		}
	}
	if err := json.Unmarshal(text, &conf); err != nil {
		t.Fatal(err)
	}
	if got := conf.Plugins[0].IPAM.Ranges[0][0].Subnet; got != "10.244.0.0/24" {
		t.Errorf("pod addresses come from %s", got)
	}
	if got := conf.Plugins[0].Bridge; got != "cni0af40000" { // a network card's name has 15 bytes at most
		t.Errorf("the bridge is %s", got)
	}
}

// TestGone: only the API's word that there is no Node, of one that was there and
// is to stay, has the kubelet start anew.
func TestGone(t *testing.T) {
	for name, test := range map[string]struct {
		marks  string
		answer string
		gone   bool
		left   string // of the marks
	}{
		"it was registered":     {marks: "registered", gone: true},
		"it never was":          {},
		"the API is away":       {marks: "registered", answer: away, left: "registered"},
		"the machine leaves":    {marks: "leaving registered", left: "leaving registered"},
		"another took its name": {marks: "leaving registered", answer: `{"metadata":{"uid":"u2"},"spec":{"podCIDR":"10.244.9.0/24"}}`, left: "leaving registered"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f := &follower{
				Hostname: "prod-1", Access: apiclient.Access(apitest.Serve(t, &registry{dir: dir, script: []string{test.answer}})),
				Registered: filepath.Join(dir, "registered"), Leaving: filepath.Join(dir, "leaving"), CNIDir: dir,
			}
			defer f.hangUp()
			for _, mark := range strings.Fields(test.marks) {
				if err := os.WriteFile(filepath.Join(dir, mark), []byte("u1\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			missing, err := f.look(t.Context())
			var restart *supervise.RestartError
			if errors.As(err, &restart) != test.gone || test.gone && (restart.Unit != "kubelet" || missing != "its Node is gone; the kubelet registers it anew") {
				t.Errorf("look = %q, %v", missing, err)
			}
			if left := strings.Join(list(dir), " "); left != test.left {
				t.Errorf("marks %q, want %q", left, test.left)
			}
			if uid, err := os.ReadFile(f.Registered); err == nil && string(uid) != "u1\n" {
				t.Errorf("it takes %s for its Node", uid)
			}
		})
	}
}

// TestGoneOnce: a kubelet that does not get its Node registered is not started
// anew again and again, and the unit is ready with the new Node.
func TestGoneOnce(t *testing.T) {
	dir := t.TempDir()
	server := &registry{dir: dir, script: []string{"", "", away, "",
		`{"metadata":{"uid":"u2"},"spec":{"podCIDR":"10.244.9.0/24"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`}}
	f := &follower{
		Hostname: "prod-1", Access: apiclient.Access(apitest.Serve(t, server)),
		Registered: filepath.Join(dir, "registered"), CNIDir: dir,
	}
	if err := os.WriteFile(f.Registered, []byte("u1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.Run(t.Context(), func() { t.Error("ready") }); !errors.Is(err, errGone) || f.WaitingFor() != errGone.Error() {
		t.Errorf("Run = %v, waiting for %q", err, f.WaitingFor())
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := f.Run(ctx, cancel); err != nil {
		t.Errorf("Run again = %v", err)
	}
	if uid, err := os.ReadFile(f.Registered); err != nil || string(uid) != "u2\n" {
		t.Errorf("registered: %q, %v", uid, err)
	}
}

// TestFollowerFails: a machine that cannot be configured is an error by name,
// not a wait.
func TestFollowerFails(t *testing.T) {
	server := &registry{script: []string{`{"spec":{"podCIDR":"10.244.0.0/24"}}`}}
	f := &follower{
		Hostname: "prod-1", Access: apiclient.Access(apitest.Serve(t, server)),
		Registered: "/proc/none", CNIDir: t.TempDir(),
	}
	err := f.Run(t.Context(), func() { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), "set up the pod network: write /proc/none") {
		t.Errorf("Run = %v", err)
	}
}

func TestMissing(t *testing.T) {
	tests := map[string]string{
		`{}`:                                   "a pod subnet from the controller manager",
		`{"spec":{"podCIDR":"10.244.0.0/24"}}`: "the Node to be Ready",
		`{"spec":{"podCIDR":"10.244.0.0/24"},"status":{"conditions":[{"type":"Ready","status":"False","message":"no network"}]}}`:        "the Node to be Ready: no network",
		`{"spec":{"podCIDR":"10.244.0.0/24"},"status":{"conditions":[{"type":"Ready","status":"True","message":"fine"}]}}`:               "",
		`{"spec":{"podCIDR":"10.244.0.0/24"},"status":{"conditions":[{"type":"Ready","status":"True"}],"nodeInfo":{"bootID":"this"}}}`:   "",
		`{"spec":{"podCIDR":"10.244.0.0/24"},"status":{"conditions":[{"type":"Ready","status":"True"}],"nodeInfo":{"bootID":"before"}}}`: "the kubelet to report after the restart",
	}
	for text, want := range tests {
		var n node
		if err := json.Unmarshal([]byte(text), &n); err != nil {
			t.Fatal(err)
		}
		if got := n.missing("this"); got != want {
			t.Errorf("missing of %s = %q, want %q", text, got, want)
		}
	}
}
