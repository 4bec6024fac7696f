package drain

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
)

// cluster is an API server by hand: one node with pods.
type cluster struct {
	mu      sync.Mutex
	node    string // JSON
	pods    map[string]string
	guarded map[string]int // evictions that a budget still refuses
	refused func(left int) // of each of them
	patches []string
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name, isEviction := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/default/pods/"), "/eviction")
	switch {
	case r.Method == http.MethodPatch:
		body, _ := io.ReadAll(r.Body)
		c.patches = append(c.patches, string(body))
		io.WriteString(w, "{}")
	case r.URL.Path == "/api/v1/nodes/w1":
		io.WriteString(w, c.node)
	case r.URL.Path == "/api/v1/pods" && r.URL.Query().Get("fieldSelector") == "spec.nodeName=w1":
		var items []json.RawMessage
		for _, p := range c.pods {
			items = append(items, json.RawMessage(p))
		}
		json.NewEncoder(w).Encode(map[string]any{"items": items})
	case isEviction && c.pods[name] == "":
		w.WriteHeader(http.StatusNotFound)
	case isEviction && c.guarded[name] > 0:
		c.guarded[name]--
		if c.refused != nil {
			c.refused(c.guarded[name])
		}
		w.WriteHeader(http.StatusTooManyRequests)
		io.WriteString(w, `{"message":"the budget web allows none"}`)
	case isEviction:
		delete(c.pods, name)
		io.WriteString(w, "{}")
	default:
		w.WriteHeader(http.StatusTeapot)
	}
}

func aPod(name, rest string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"default","uid":"u-%s"%s`, name, name, rest)
}

const (
	byReplicaSet = `,"ownerReferences":[{"kind":"ReplicaSet","controller":true}]},"status":{"phase":"Running"}}`
	byDaemonSet  = `,"ownerReferences":[{"kind":"DaemonSet","controller":true}]},"status":{"phase":"Running"}}`
	byNobody     = `},"status":{"phase":"Running"}}`
	ended        = `},"status":{"phase":"Succeeded"}}`
	mirrored     = `,"annotations":{"kubernetes.io/config.mirror":"x"}},"status":{"phase":"Running"}}`
)

func (c *cluster) drained(t *testing.T) Node {
	t.Helper()
	client, err := apiclient.Open(apiclient.Access(apitest.Serve(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return Node{API: client, Name: "w1", Every: time.Millisecond}
}

func TestEvict(t *testing.T) {
	c := &cluster{
		pods: map[string]string{
			"web-1": aPod("web-1", byReplicaSet), "web-2": aPod("web-2", byReplicaSet), "agent": aPod("agent", byDaemonSet),
			"job": aPod("job", ended), "static": aPod("static", mirrored),
		},
		guarded: map[string]int{"web-2": 2},
	}
	if err := c.drained(t).Evict(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if len(c.pods) != 3 || c.pods["web-1"] != "" || c.pods["web-2"] != "" {
		t.Errorf("left: %v", c.pods)
	}
}

func TestEvictStops(t *testing.T) {
	c := &cluster{pods: map[string]string{"alone": aPod("alone", byNobody)}, guarded: map[string]int{}}
	n := c.drained(t)
	if err := n.Evict(t.Context(), false); err == nil || !strings.Contains(err.Error(), "nothing would make default/alone anew") || len(c.pods) != 1 {
		t.Errorf("a pod of nobody: %v, left %v", err, c.pods)
	}
	c.guarded["alone"] = 3
	ctx, cancel := context.WithCancel(t.Context())
	c.refused = func(left int) {
		if left == 1 {
			cancel()
		}
	}
	if err := n.Evict(ctx, true); err == nil || !strings.Contains(err.Error(), "still default/alone (") || !strings.Contains(err.Error(), "budget web allows none") {
		t.Errorf("a pod that a budget keeps: %v", err)
	}
	if err := n.Evict(t.Context(), true); err != nil || len(c.pods) != 0 {
		t.Errorf("by force: %v, left %v", err, c.pods)
	}
}

// TestCordon: a node that a person cordoned stays so.
func TestCordon(t *testing.T) {
	const free, byHand, byUs = `{"spec":{}}`, `{"spec":{"unschedulable":true}}`, `{"metadata":{"annotations":{"slipway.internal/cordoned":"upgrade"}},"spec":{"unschedulable":true}}`
	for _, test := range []struct {
		node     string
		uncordon bool
		patched  string // a part of it; empty: nothing
	}{
		{free, false, `"unschedulable":true`}, {byHand, false, ""}, {byUs, false, ""},
		{free, true, ""}, {byHand, true, ""}, {byUs, true, `"unschedulable":null`},
	} {
		c := &cluster{node: test.node}
		n := c.drained(t)
		act := n.Cordon
		if test.uncordon {
			act = n.Uncordon
		}
		if err := act(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.patches, ""); (got == "") != (test.patched == "") || !strings.Contains(got, test.patched) {
			t.Errorf("%s, uncordon %t: patched %q, want %q", test.node, test.uncordon, got, test.patched)
		}
	}
}

// TestVersions: what the kubelets say of themselves, by the nodes' names.
func TestVersions(t *testing.T) {
	answer := `{"items":[{"metadata":{"name":"cp-1"},"status":{"nodeInfo":{"kubeletVersion":"v1.37.1","kernelVersion":"6.12"}}},{"metadata":{"name":"w1"}}]}`
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/nodes" || answer == "" {
			w.WriteHeader(http.StatusTeapot)
		}
		io.WriteString(w, answer)
	})
	client, err := apiclient.Open(apiclient.Access(apitest.Serve(t, handler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	versions, err := Node{API: client}.Versions(t.Context())
	if want := map[string]string{"cp-1": "v1.37.1", "w1": ""}; err != nil || !maps.Equal(versions, want) {
		t.Errorf("%v, %v; want %v", versions, err, want)
	}
	answer = ""
	if versions, err := (Node{API: client}).Versions(t.Context()); err == nil {
		t.Errorf("an API that does not answer: %v", versions)
	}
}
