package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/configs/machine"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/drain"
	"slipway/controlplane/pki"
)

// web is an application of two pods of which one may be missing, on a node that
// has no kubelet: who deletes its pods need not wait for anybody.
const web = `
apiVersion: v1
kind: Node
metadata: {name: drained}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: web}]
`

// testDrain takes a node's pods away from it as an upgrade does: as fast as their
// disruption budget lets it, and not at all where it does not.
func testDrain(t *testing.T, cfg *machine.Config) {
	kubectl(t, web, "apply", "-f", "-")
	kubectl(t, "", "wait", "--for=jsonpath={.status.replicas}=2", "replicaset/web", "--timeout=60s")
	for _, pod := range pods(t) {
		kubectl(t, `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"`+pod+`"},"target":{"kind":"Node","name":"drained"}}`,
			"create", "--raw", "/api/v1/namespaces/default/pods/"+pod+"/binding", "-f", "-")
	}
	allWell(t)
	kubectl(t, "", "wait", "--for=jsonpath={.status.currentHealthy}=2", "pdb/web", "--timeout=60s")
	n := drain.Node{API: adminOf(t, cfg), Name: "drained", Every: 100 * time.Millisecond}
	must(t, n.Cordon(t.Context()))
	want(t, kubectl(t, "", "get", "node", "drained", "-o", "jsonpath={.spec.unschedulable}"), "true")

	short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := n.Evict(short, false); err == nil || strings.Count(err.Error(), "disruption budget") != 2 {
		t.Fatalf("with a budget that allows none: %v", err)
	}

	kubectl(t, "", "patch", "pdb", "web", "--type=merge", "-p", `{"spec":{"minAvailable":1}}`)
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.Evict(long, false) }()
	eventually(t, "a first pod to go", func() bool { return len(on(t, "drained")) == 1 })
	eventually(t, "the second to go once the first is replaced", func() bool { allWell(t); return len(on(t, "drained")) == 0 })
	must(t, <-done)
	must(t, n.Uncordon(t.Context()))
	if node := kubectl(t, "", "get", "node", "drained", "-o", "json"); strings.Contains(node, "unschedulable") || strings.Contains(node, "slipway") {
		t.Errorf("given back, it is\n%s", node)
	}
	kubectl(t, "", "delete", "replicaset/web", "pdb/web", "node/drained")
}

// testLeaving: a Node whose machine says that it leaves is deleted. With the UID of
// another one, of a machine that had the name before, neither is done.
func testLeaving(t *testing.T, cfg *machine.Config) {
	kubectl(t, `{"apiVersion":"v1","kind":"Node","metadata":{"name":"left"}}`, "create", "-f", "-")
	api, path := adminOf(t, cfg), "/api/v1/nodes/left"
	label := func(uid string) error {
		return api.Patch(t.Context(), path, apiclient.Merge, fmt.Appendf(nil, `{"metadata":{"uid":%q,"labels":{%q:"true"}}}`, uid, apiclient.Leaving))
	}
	if err := label("another"); err == nil {
		t.Error("it was labelled by the UID of another")
	}
	if err := api.Delete(t.Context(), path, "another"); !errors.Is(err, apiclient.ErrConflict) {
		t.Errorf("deleted by the UID of another: %v", err)
	}
	must(t, label(kubectl(t, "", "get", "node", "left", "-o", "jsonpath={.metadata.uid}")))
	eventually(t, "the Node to be deleted", func() bool {
		return errors.Is(api.Get(t.Context(), path, &struct{}{}), apiclient.ErrNotFound)
	})
}

// adminOf is the API as slipway cluster upgrade uses it.
func adminOf(t *testing.T, cfg *machine.Config) *apiclient.Client {
	t.Helper()
	ca := pki.CA{CertPEM: []byte(cfg.Cluster.CA), KeyPEM: []byte(cfg.ControlPlaneKeys.CAKey.Reveal())}
	leaf, err := ca.Issue(pki.Request{CommonName: "ada", Organizations: []string{"slipway:cluster-admins"}, Client: true, Validity: time.Hour}, time.Now())
	must(t, err)
	pair, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	must(t, err)
	client, err := apiclient.New("https://192.0.2.10:6443", ca.CertPEM, pair)
	must(t, err)
	t.Cleanup(client.Close)
	return client
}

// pods are the names of those of web, wherever they are.
func pods(t *testing.T) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"))
}

func on(t *testing.T, node string) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "", "get", "pods", "--field-selector", "spec.nodeName="+node, "-o", "jsonpath={.items[*].metadata.name}"))
}

// allWell is what the kubelets would say of them. One may be gone by then.
func allWell(t *testing.T) {
	t.Helper()
	for _, pod := range pods(t) {
		_, _ = try("/tmp/admin.kubeconfig", "", "patch", "pod", pod, "--subresource=status", "--type=merge",
			"-p", `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`)
	}
}
