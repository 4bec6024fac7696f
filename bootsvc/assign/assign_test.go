package assign

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"slipway/bootsvc/authority"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// id is the n-th machine's.
func id(n int) string { return fmt.Sprintf("52-54-00-00-00-%02d", n) }

func newOffice(t *testing.T) *Office {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	clock := func() time.Time { return noon }
	ca, err := authority.Open(t.Context(), s, clock)
	if err != nil {
		t.Fatal(err)
	}
	return New(s, inventory.New(s, log, prometheus.NewRegistry()), ca, clock)
}

// approve makes the n-th machine one that has an approved key, "key".
func approve(t *testing.T, o *Office, n int, key string) {
	t.Helper()
	_, err := o.inventory.Change(t.Context(), id(n), func(m *inventory.Machine) ([]inventory.Event, error) {
		*m = m.Approve(inventory.Key{Hash: key})
		m.Address = netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
		*m = m.Enter(enroll.Approved)
		if m.Cluster != "" {
			*m = m.Enter(enroll.Assigned)
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func document(name string, machines ...int) []byte {
	text := "name: " + name + "\nmachines:\n"
	for _, n := range machines {
		text += "- id: " + id(n) + "\n"
	}
	return []byte(text)
}

func fetch(t *testing.T, o *Office, n int, key string) (*machine.Config, error) {
	t.Helper()
	got, err := o.Fetch(t.Context(), id(n), key, Has{Prepared: true}, time.Minute)
	if err != nil {
		return nil, err
	}
	return machine.Parse(got.YAML, "config")
}

// ready has a machine say that it is.
func ready(t *testing.T, o *Office, n int, key string) {
	t.Helper()
	if _, err := o.Report(t.Context(), id(n), key, Report{Phase: enroll.Ready}); err != nil {
		t.Fatal(err)
	}
}

func TestACookbookCluster(t *testing.T) {
	o := newOffice(t)
	approve(t, o, 1, "key1")
	approve(t, o, 2, "key2")
	c, err := o.Create(t.Context(), document("prod", 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	if c.Endpoint != "https://10.0.0.1:6443" || len(c.Machines) != 2 || c.Machines[0].Phase != enroll.Assigned {
		t.Errorf("the cluster is %+v", c)
	}
	plane, err := fetch(t, o, 1, "key1")
	if err != nil {
		t.Fatal(err)
	}
	if plane.Hostname != "prod-cp-1" || plane.Etcd.Bootstrap == nil || plane.Cluster.ControlPlanes[0].String() != "10.0.0.1" {
		t.Errorf("the control plane's config is %+v", plane)
	}
	if got := strings.Join(plane.Kubelet.Taints, " "); got != controlPlaneTaint {
		t.Errorf("beside a worker, a control plane's taints are %q", got)
	}
	ready(t, o, 1, "key1")
	worker, err := fetch(t, o, 2, "key2")
	if err != nil {
		t.Fatal(err)
	}
	if worker.Role != machine.Worker || worker.ControlPlaneKeys != nil {
		t.Errorf("the worker's config is %+v", worker)
	}
	if worker.Cluster.CA != plane.Cluster.CA || worker.Cluster.BootstrapToken != plane.Cluster.BootstrapToken {
		t.Error("the two are not of one cluster")
	}
}

func TestAConfigIsDeliveredUntilItIsAcknowledged(t *testing.T) {
	o := newOffice(t)
	approve(t, o, 1, "key1")
	if _, err := o.Create(t.Context(), document("prod", 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := fetch(t, o, 1, "key1"); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // it may be repeated
		if err := o.Acknowledge(t.Context(), id(1), "key1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fetch(t, o, 1, "key1"); !errors.Is(err, ErrDelivered) {
		t.Errorf("after the acknowledgement: %v", err)
	}
	approve(t, o, 1, "key2") // it was restarted, and approved again
	if _, err := fetch(t, o, 1, "key1"); !errors.Is(err, ErrReplaced) {
		t.Errorf("with the key before: %v", err)
	}
	if err := o.Acknowledge(t.Context(), id(1), "key1"); !errors.Is(err, ErrReplaced) {
		t.Errorf("acknowledging with the key before: %v", err)
	}
	config, err := fetch(t, o, 1, "key2")
	if err != nil {
		t.Fatal(err)
	}
	if config.Etcd.Bootstrap == nil {
		t.Error("a lone control plane in RAM must make its etcd anew")
	}
}

func TestOnlyTheFirstOfThreeBootstrapsAndOnlyOnce(t *testing.T) {
	o := newOffice(t)
	text := "name: prod\nmachines:\n"
	for n := 1; n <= 3; n++ {
		approve(t, o, n, "key")
		text += "- {id: " + id(n) + ", role: control-plane}\n"
	}
	if _, err := o.Create(t.Context(), []byte(text)); err != nil {
		t.Fatal(err)
	}
	bootstraps := func() (shown string) {
		for n := 1; n <= 3; n++ {
			config, err := fetch(t, o, n, "key")
			if err != nil {
				t.Fatal(err)
			}
			shown += fmt.Sprint(config.Etcd.Bootstrap != nil, " ")
			ready(t, o, n, "key") // or the next would wait
		}
		return shown
	}
	if got := bootstraps(); got != "true false false " {
		t.Errorf("bootstrap: %s", got)
	}
	if err := o.Acknowledge(t.Context(), id(1), "key"); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		voter := &inventory.EtcdState{Generation: 1, Voter: true, Healthy: true}
		if _, err := o.Report(t.Context(), id(n), "key", Report{Etcd: voter}); err != nil {
			t.Fatal(err)
		}
	}
	approve(t, o, 1, "key2")
	config, err := fetch(t, o, 1, "key2")
	if err != nil {
		t.Fatal(err)
	}
	if config.Etcd.Bootstrap != nil {
		t.Error("the first control plane would start a second etcd cluster")
	}
}

func TestFetchWaitsAndSaysForWhat(t *testing.T) {
	o := newOffice(t)
	approve(t, o, 2, "key")
	got, err := o.Fetch(t.Context(), id(2), "key", Has{Prepared: true}, time.Millisecond)
	if err != nil || !strings.Contains(got.WaitingFor, "a cluster") {
		t.Errorf("unclaimed: %q, %v", got.WaitingFor, err)
	}
	if _, err := o.Create(t.Context(), document("prod", 1, 2)); err != nil { // 1 was never seen
		t.Fatal(err)
	}
	got, err = o.Fetch(t.Context(), id(2), "key", Has{Prepared: true}, 50*time.Millisecond)
	if err != nil || !strings.Contains(got.WaitingFor, "prod-cp-1") {
		t.Errorf("without a control plane: %q, %v", got.WaitingFor, err)
	}
	woken := make(chan error, 1)
	go func() {
		config, err := o.Fetch(t.Context(), id(2), "key", Has{Prepared: true}, time.Minute)
		if err == nil && config.YAML == nil {
			err = errors.New("no config")
		}
		woken <- err
	}()
	approve(t, o, 1, "key1")
	got, err = o.Fetch(t.Context(), id(2), "key", Has{Prepared: true}, 50*time.Millisecond)
	if err != nil || !strings.Contains(got.WaitingFor, "prod-cp-1 to be ready") {
		t.Errorf("beside a control plane that begins: %q, %v", got.WaitingFor, err)
	}
	ready(t, o, 1, "key1")
	if err := <-woken; err != nil {
		t.Errorf("after the control plane was ready: %v", err)
	}
}

func TestAMachineHasOneCluster(t *testing.T) {
	o := newOffice(t)
	approve(t, o, 1, "key")
	for range 2 { // the same document again is no error
		if _, err := o.Create(t.Context(), document("prod", 1)); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := o.keys.Get(t.Context(), "prod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Create(t.Context(), document("prod", 1, 2)); !errors.Is(err, ErrExists) {
		t.Errorf("another document of the same name: %v", err)
	}
	if _, err := o.Create(t.Context(), document("test", 2, 1)); !errors.Is(err, ErrClaimed) {
		t.Errorf("another cluster with the same machine: %v", err)
	}
	if _, err := o.inventory.Get(t.Context(), id(2)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a refused cluster kept a machine: %v", err)
	}
	if again, err := o.keys.Get(t.Context(), "prod"); err != nil || again.BootstrapToken != keys.BootstrapToken {
		t.Errorf("the cluster's keys changed: %v", err)
	}
	if _, err := o.Create(t.Context(), []byte("name: x\nmachine: []\n")); !errors.Is(err, ErrDocument) {
		t.Errorf("a bad document: %v", err)
	}
}

func TestWhichCluster(t *testing.T) {
	o := newOffice(t)
	if _, err := o.Get(t.Context(), ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no cluster: %v", err)
	}
	for n, name := range []string{"a", "b"} {
		if _, err := o.Create(t.Context(), document(name, n)); err != nil {
			t.Fatal(err)
		}
		c, err := o.Get(t.Context(), "")
		switch {
		case n == 0 && (err != nil || c.Document.Name != "a"):
			t.Errorf("the only one: %v", err)
		case n == 1 && (!errors.Is(err, ErrWhich) || !strings.Contains(err.Error(), "a, b")):
			t.Errorf("one of two: %v", err)
		}
	}
}

func TestKubeconfig(t *testing.T) {
	o := newOffice(t)
	if _, err := o.Create(t.Context(), document("prod", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Kubeconfig(t.Context(), "prod", "ann"); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("before the control plane has an address: %v", err)
	}
	approve(t, o, 1, "key")
	text, err := o.Kubeconfig(t.Context(), "", "ann")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"server: https://10.0.0.1:6443", "name: ann", "client-key-data:"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in the kubeconfig", want)
		}
	}
}

// address is one machine's in one of many clusters.
func address(cluster, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 1, byte(cluster), byte(n + 1)})
}
