package addons

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
)

// nodesOf makes a list of "address" (Ready) and "address!" (not).
func nodesOf(names ...string) string {
	var items []string
	for _, name := range names {
		address, down := strings.CutSuffix(name, "!")
		status := map[bool]string{true: "Unknown", false: "True"}[down]
		items = append(items, fmt.Sprintf(`{"metadata":{"name":"x"},"status":{
			"addresses":[{"type":"Hostname","address":"x"},{"type":"InternalIP","address":%q}],
			"conditions":[{"type":"MemoryPressure","status":"True"},{"type":"Ready","status":%q}]}}`, address, status))
	}
	return `{"items":[` + strings.Join(items, ",") + `]}`
}

var own = netip.MustParseAddr("192.0.2.1")

func TestEndpoints(t *testing.T) {
	for _, test := range []struct {
		name, nodes, want string
	}{
		{"no Node yet", `{"items":[]}`, "192.0.2.1"},
		{"a Node that has no address yet", `{"items":[{"status":{}}]}`, "192.0.2.1"},
		{"the first", nodesOf("192.0.2.1"), "192.0.2.1"},
		{"in the order of addresses", nodesOf("192.0.2.3", "192.0.2.1", "192.0.2.2"), "192.0.2.1 192.0.2.2 192.0.2.3"},
		{"one died", nodesOf("192.0.2.1", "192.0.2.2!", "192.0.2.3"), "192.0.2.1 192.0.2.2! 192.0.2.3"},
		{"even this one", nodesOf("192.0.2.1!", "192.0.2.2"), "192.0.2.1! 192.0.2.2"},
		{"this one leaves", strings.Replace(nodesOf("192.0.2.1", "192.0.2.2"), `"name":"x"`, `"labels":{"slipway.internal/leaving":""}`, 1), "192.0.2.1! 192.0.2.2"},
		{"none is ready", nodesOf("192.0.2.1!", "192.0.2.2!"), "192.0.2.1 192.0.2.2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var nodes nodeList
			if err := json.Unmarshal([]byte(test.nodes), &nodes); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range nodes.endpoints(own) {
				mark := map[bool]string{true: "", false: "!"}[e.Conditions.Ready]
				got = append(got, strings.Join(e.Addresses, ",")+mark)
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// TestFirst: of those that are ready one is the first, and each comes to the same one.
func TestFirst(t *testing.T) {
	server := &api{nodes: nodesOf("192.0.2.2!", "192.0.2.1!", "192.0.2.3", "192.0.2.4")}
	access := apiclient.Access(apitest.Serve(t, server))
	for i := byte(1); i <= 4; i++ {
		d := dns{access: access, own: netip.AddrFrom4([4]byte{192, 0, 2, i})}
		defer d.hangUp()
		if err := d.update(t.Context()); err != nil || d.first != (i == 3) {
			t.Errorf("%s: first %t, %v", d.own, d.first, err)
		}
	}
}

// api serves a list of Nodes and notes what is applied.
type api struct {
	mu      sync.Mutex
	nodes   string
	applied []string
	broken  bool
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.broken:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method == http.MethodGet && r.URL.Query().Get("labelSelector") == "node-role.kubernetes.io/control-plane":
		io.WriteString(w, a.nodes)
	case r.Method == http.MethodPatch && r.URL.Path == "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-slipway":
		body, _ := io.ReadAll(r.Body)
		a.applied = append(a.applied, string(body))
	}
}

// TestUpdate: what is new is applied, what is the same is not; after an error
// all is.
func TestUpdate(t *testing.T) {
	server := &api{nodes: nodesOf("192.0.2.1")}
	d := dns{access: apiclient.Access(apitest.Serve(t, server)), own: own}
	defer d.hangUp()
	update := func(applied int, fails bool) {
		t.Helper()
		if err := d.update(t.Context()); (err != nil) != fails || len(server.applied) != applied {
			t.Errorf("update = %v, %d applied, want %d", err, len(server.applied), applied)
		}
	}
	update(1, false)
	update(1, false)
	server.nodes = nodesOf("192.0.2.1", "192.0.2.2!")
	update(2, false)
	if want := `"endpoints":[{"addresses":["192.0.2.1"],"conditions":{"ready":true}},{"addresses":["192.0.2.2"],"conditions":{"ready":false}}]`; !strings.Contains(server.applied[1], want) {
		t.Errorf("applied %s", server.applied[1])
	}
	server.broken = true
	update(2, true)
	server.broken = false
	update(3, false)
}
