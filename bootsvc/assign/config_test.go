package assign

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/controlplane/pki"
)

// made is a cluster of a document whose machines have all enrolled.
func made(t *testing.T, document string, machines int) *Office {
	t.Helper()
	o := newOffice(t)
	for n := 1; n <= machines; n++ {
		approve(t, o, n, "key")
	}
	if _, err := o.Create(t.Context(), []byte(document)); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestEtcdOnMachinesOfItsOwn(t *testing.T) {
	o := made(t, fmt.Sprintf(`name: prod
certificateLifetime: 1h
etcd: {allowSlowDisk: true}
machines:
- {id: %s, role: control-plane}
- {id: %s, role: etcd}
- {id: %s, role: worker}
`, id(1), id(2), id(3)), 3)
	plane, err := fetch(t, o, 1, "key")
	if err != nil {
		t.Fatal(err)
	}
	if plane.IsMember() || plane.Etcd.Bootstrap != nil || len(plane.Etcd.Members) != 1 || plane.Etcd.Members[0].Name != "prod-etcd-1" || plane.ControlPlaneKeys == nil {
		t.Errorf("the control plane's etcd is %+v", plane.Etcd)
	}
	member, err := fetch(t, o, 2, "key")
	if err != nil {
		t.Fatal(err)
	}
	if !member.IsMember() || member.Etcd.Bootstrap == nil || !member.Etcd.AllowSlowDisk || member.ControlPlaneKeys != nil || member.Cluster.CertificateLifetime != time.Hour {
		t.Errorf("the member's config is %+v", member)
	}
	ready(t, o, 1, "key")
	worker, err := fetch(t, o, 3, "key")
	if err != nil {
		t.Fatal(err)
	}
	if worker.Etcd != nil || worker.ControlPlaneKeys != nil || len(worker.Cluster.ControlPlanes) != 1 || worker.Cluster.ControlPlanes[0].String() != "10.0.0.1" {
		t.Errorf("the worker's config is %+v", worker)
	}
}

// externalDocument is a cluster whose etcd is someone else's.
func externalDocument(t *testing.T) (text, key string) {
	t.Helper()
	ca, err := pki.NewCA("their etcd", noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Request{CommonName: "slipway", Client: true, Validity: time.Hour}, noon)
	if err != nil {
		t.Fatal(err)
	}
	indent := func(pem []byte) string {
		return "|\n      " + strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n      ")
	}
	return fmt.Sprintf(`name: prod
etcd:
  external:
    endpoints: ["https://10.9.9.9:2379"]
    ca: %s
    cert: %s
    key: %s
machines:
- {id: %s, role: control-plane, hostname: cp-1}
- {id: %s, role: control-plane, hostname: cp-2}
`, indent(ca.CertPEM), indent(leaf.CertPEM), indent(leaf.KeyPEM), id(1), id(2)), strings.Split(string(leaf.KeyPEM), "\n")[1]
}

func TestAnEtcdThatSomeoneElseRuns(t *testing.T) {
	text, key := externalDocument(t)
	o := made(t, text, 2)
	for n := 1; n <= 2; n++ {
		config, err := fetch(t, o, n, "key")
		if err != nil {
			t.Fatal(err)
		}
		e := config.Etcd
		if e.External == nil || e.External.Endpoints[0] != "https://10.9.9.9:2379" || !strings.Contains(e.External.Key.Reveal(), key) ||
			len(e.Members) != 0 || e.Bootstrap != nil || !e.CAKey.IsZero() {
			t.Errorf("%d has the etcd %+v", n, e)
		}
		ready(t, o, n, "key")
	}
	c, err := o.Show(t.Context(), "prod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(c.YAML), key) || strings.Contains(string(c.YAML), "PRIVATE") {
		t.Errorf("the document shows the key\n%s", c.YAML)
	}
	// What was shown comes back edited, and the key is still there.
	edited := strings.Replace(string(c.YAML), "10.9.9.9", "10.9.9.8", 1)
	if _, err := o.Update(t.Context(), []byte(edited), Leave{}); err != nil {
		t.Fatal(err)
	}
	kept, err := o.clusters.Get(t.Context(), "prod")
	if err != nil || !strings.Contains(kept.Document, key) || !strings.Contains(kept.Document, "10.9.9.8") {
		t.Errorf("after the update: %v\n%s", err, kept.Document)
	}
	if _, err := o.Create(t.Context(), []byte(strings.Replace(edited, "name: prod", "name: other", 1))); err == nil || !strings.Contains(err.Error(), "masked") {
		t.Errorf("a new cluster with a masked key: %v", err)
	}
	// One control plane never comes back: the other gets its config.
	if _, err := o.Update(t.Context(), []byte(strings.ReplaceAll(edited, id(2), id(9))), Leave{}); err != nil {
		t.Fatal(err)
	}
	approve(t, o, 1, "key2")
	if config, err := fetch(t, o, 1, "key2"); err != nil || len(config.Cluster.ControlPlanes) != 1 {
		t.Errorf("without the other: %v", err)
	}
}

func TestTheSameClusterGivesTheSameBytes(t *testing.T) {
	keys, err := NewKeys("prod", noon)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := cluster.Parse([]byte("name: prod\nmachines: [{id: "+id(1)+", labels: {z: a, y: b, x: c, w: d, v: e}}]\n"), "c")
	if err != nil {
		t.Fatal(err)
	}
	o := grown(t, 1)
	m, err := o.inventory.Get(t.Context(), id(1))
	if err != nil {
		t.Fatal(err)
	}
	m.Phase, m.Role = enroll.Ready, machine.ControlPlane
	c := Cluster{Document: doc, Endpoint: "https://10.0.0.1:6443", Etcd: Etcd{Generation: 1}, machineCA: string(o.CA.View().Bundle)}
	c.Machines = append(c.Machines, m)
	first, err := c.render(m, keys)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, err := c.render(m, keys); err != nil || again.digest != first.digest || first.generation != 1 {
			t.Fatalf("%s, then %s, %v", first.digest, again.digest, err)
		}
	}
}
