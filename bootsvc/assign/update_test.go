package assign

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/configs/wipe"
)

// planes is a document of stacked control planes, with more lines.
func planes(more string, machines ...int) []byte {
	text := "name: prod\n" + more + "machines:\n"
	for _, n := range machines {
		text += fmt.Sprintf("- {id: %s, role: control-plane, hostname: cp-%d}\n", id(n), n)
	}
	return []byte(text)
}

// grown is a cluster of control planes that are all healthy voters, with key "key".
func grown(t *testing.T, machines ...int) *Office {
	t.Helper()
	o := newOffice(t)
	for _, n := range machines {
		approve(t, o, n, "key")
	}
	if _, err := o.Create(t.Context(), planes("", machines...)); err != nil {
		t.Fatal(err)
	}
	for _, n := range machines {
		settleDown(t, o, n)
	}
	return o
}

// settleDown takes a machine from its first config to a healthy voter.
func settleDown(t *testing.T, o *Office, n int) {
	t.Helper()
	if _, err := fetch(t, o, n, "key"); err != nil {
		t.Fatal(err)
	}
	if err := o.Acknowledge(t.Context(), id(n), "key"); err != nil {
		t.Fatal(err)
	}
	apply(t, o, n)
}

// apply lets a machine say that it runs with what it was given, and is well.
func apply(t *testing.T, o *Office, n int) {
	t.Helper()
	m, err := o.inventory.Get(t.Context(), id(n))
	if err != nil {
		t.Fatal(err)
	}
	voter := &inventory.EtcdState{Generation: m.Given.Generation, Voter: true, Healthy: true}
	if _, err := o.Report(t.Context(), id(n), "key", Report{Phase: enroll.Ready, Applied: m.Given.Digest, Etcd: voter}); err != nil {
		t.Fatal(err)
	}
}

// ask is what a machine gets that has a config.
func ask(t *testing.T, o *Office, n int) Config {
	t.Helper()
	m, err := o.inventory.Get(t.Context(), id(n))
	if err != nil {
		t.Fatal(err)
	}
	have := m.Applied
	if have == "" {
		have = strings.Repeat("0", 64)
	}
	got, err := o.offer(t.Context(), &asker{id: id(n), keyHash: "key", have: have})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAChangeGoesAroundOneByOne(t *testing.T) {
	o := grown(t, 1, 2, 3)
	for n := 1; n <= 3; n++ {
		if got := ask(t, o, n); !got.Unchanged || got.WaitingFor != "" {
			t.Errorf("before the change, %d gets %+v", n, got)
		}
	}
	if _, err := o.Update(t.Context(), planes("virtualIP: 10.0.0.99\n", 1, 2, 3), Leave{}); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, o, 2); got.YAML == nil {
		t.Fatalf("the first to ask gets %+v", got)
	}
	if got := ask(t, o, 1); got.YAML != nil || !got.Unchanged || got.WaitingFor != "cp-2 to take its config" {
		t.Errorf("the next one gets %+v", got)
	}
	if got := ask(t, o, 2); got.YAML == nil {
		t.Errorf("the first one, whose answer was lost, gets %+v", got)
	}
	apply(t, o, 2)
	for _, n := range []int{3, 1} {
		got := ask(t, o, n)
		config, err := machine.Parse(got.YAML, "config")
		if err != nil || config.Cluster.VirtualIP.String() != "10.0.0.99" || config.Cluster.Endpoint != "https://10.0.0.99:6443" {
			t.Errorf("%d gets %+v, %v", n, config, err)
		}
		apply(t, o, n)
	}
	c, err := o.Show(t.Context(), "prod")
	if err != nil || c.Revision != 2 || len(c.Current) != 3 || !c.Current[id(1)] || !c.Current[id(2)] || !c.Current[id(3)] {
		t.Errorf("in the end: %v, %v, revision %d", c.Current, err, c.Revision)
	}
}

func TestFetchWakesForAChangedDocument(t *testing.T) {
	o := grown(t, 1)
	m, err := o.inventory.Get(t.Context(), id(1))
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.Fetch(t.Context(), id(1), "key", Has{Digest: m.Applied}, 50*time.Millisecond)
	if err != nil || !got.Unchanged {
		t.Errorf("without a change: %+v, %v", got, err)
	}
	woken := make(chan error, 1)
	go func() {
		got, err := o.Fetch(t.Context(), id(1), "key", Has{Digest: m.Applied}, 20*time.Second)
		if err == nil && got.YAML == nil {
			err = fmt.Errorf("no config: %+v", got)
		}
		woken <- err
	}()
	if _, err := o.Update(t.Context(), planes("virtualIP: 10.0.0.99\n", 1), Leave{}); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; err != nil {
		t.Error(err)
	}
}

func TestMachinesComeAndGo(t *testing.T) {
	o := grown(t, 1, 2, 3)
	// The third is dead and replaced by the fourth, under its name.
	text := strings.Replace(string(planes("", 1, 2, 4)), "hostname: cp-4", "hostname: cp-3", 1)
	if _, err := o.Update(t.Context(), []byte(text), Leave{Wipe: wipe.Zero}); err != nil {
		t.Fatal(err)
	}
	before, err := o.inventory.Get(t.Context(), id(3))
	if err != nil || before.Cluster != "" || before.Hostname != "" || before.Phase != enroll.Booting || !before.Enrolment.Released {
		t.Errorf("the machine that went is %+v, %v", before, err)
	}
	if got := ask(t, o, 3); !got.Released || got.Forced || got.Wipe != wipe.Zero {
		t.Errorf("the machine that went gets %+v", got)
	}
	if _, err := o.Report(t.Context(), id(3), "key", Report{Phase: enroll.Ready}); err != nil {
		t.Fatal(err)
	}
	if m, _ := o.inventory.Get(t.Context(), id(3)); m.Phase != enroll.Booting {
		t.Errorf("it says that it is ready, and is %s", m.Phase)
	}
	// Nobody waits for the new one.
	if got := ask(t, o, 1); got.YAML == nil {
		t.Errorf("the first one gets %+v", got)
	}
	approve(t, o, 4, "key")
	config, err := fetch(t, o, 4, "key")
	if err != nil {
		t.Fatal(err)
	}
	if config.Hostname != "cp-3" || config.Etcd.Bootstrap != nil || config.Etcd.Generation != 1 || len(config.Etcd.Members) != 3 {
		t.Errorf("the new one gets %+v", config.Etcd)
	}
	// Let go, a machine comes back with a new key, and is free.
	approve(t, o, 3, "key2")
	if m, _ := o.inventory.Get(t.Context(), id(3)); m.Phase != enroll.Approved || m.Enrolment.Released || m.Enrolment.Wipe != "" {
		t.Errorf("after its reset it is %+v", m)
	}
}

func TestAClusterIsGivenUp(t *testing.T) {
	o := grown(t, 1, 2)
	if err := o.Delete(t.Context(), "", wipe.Discard); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no name: %v", err)
	}
	if err := o.Delete(t.Context(), "prod", wipe.Discard); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 2; n++ {
		if got := ask(t, o, n); !got.Released || !got.Forced || got.Wipe != wipe.Discard {
			t.Errorf("%d gets %+v", n, got)
		}
	}
	if _, err := o.Get(t.Context(), "prod"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := o.keys.Get(t.Context(), "prod"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("its keys are still there: %v", err)
	}
	// Made anew, it begins anew: but not with the key of the life before.
	if _, err := o.Create(t.Context(), planes("", 1, 2)); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, o, 1); !got.Released {
		t.Errorf("before its reset, a machine gets %+v", got)
	}
	approve(t, o, 1, "key2")
	approve(t, o, 2, "key2")
	if config, err := fetch(t, o, 1, "key2"); err != nil || config.Etcd.Bootstrap == nil {
		t.Errorf("after its reset: %v", err)
	}
}

func TestWhatCannotBeChanged(t *testing.T) {
	o := grown(t, 1, 2, 3)
	for name, test := range map[string]struct {
		document string
		why      error
		says     string
	}{
		"pods' subnet":       {string(planes("network: {podSubnet: 10.1.0.0/16}\n", 1, 2, 3)), ErrFixed, "network.podSubnet is 10.244.0.0/16"},
		"DNS domain":         {string(planes("network: {dnsDomain: other.example}\n", 1, 2, 3)), ErrFixed, "network.dnsDomain"},
		"where etcd is":      {string(planes("", 1, 2, 3)) + "- {id: " + id(9) + ", role: etcd}\n", ErrFixed, "on machines of its own"},
		"a machine's role":   {strings.Replace(string(planes("", 1, 2, 3)), id(3)+", role: control-plane", id(3)+", role: worker", 1), ErrFixed, "take it out first"},
		"another cluster":    {strings.Replace(string(planes("", 1)), "prod", "test", 1), store.ErrNotFound, ""},
		"two of three leave": {string(planes("", 1)), ErrQuorum, "take out one machine at a time"},
		"all leave":          {string(planes("", 7, 8, 9)), ErrQuorum, "take out one machine at a time"},
		"no document":        {"name: [", ErrDocument, ""},
	} {
		if _, err := o.Update(t.Context(), []byte(test.document), Leave{}); !errors.Is(err, test.why) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c, err := o.Update(t.Context(), planes("", 1), Leave{Force: true}); err != nil || len(c.Machines) != 1 {
		t.Errorf("forced: %v", err)
	}
}

func TestQuorumBeforeMachinesGo(t *testing.T) {
	for name, test := range map[string]struct {
		voters string // + is healthy, - is not
		stay   string
		want   string // of the refusal; empty: it may be
	}{
		"nothing leaves":                {"a+ b-", "a b", ""},
		"one of three, all healthy":     {"a+ b+ c+", "a b", ""},
		"a dead one of three":           {"a+ b+ c-", "a b d", ""},
		"a healthy one beside a dead":   {"a+ b+ c-", "a c", "first mend or replace what is no healthy voter now: c"},
		"two of three":                  {"a+ b+ c+", "a", "one machine at a time"},
		"two of five":                   {"a+ b+ c+ d+ e+", "a b c", ""},
		"one of two, both healthy":      {"a+ b+", "a", ""},
		"the dead one of two":           {"a+ b-", "a d", "cluster recover"},
		"the only one":                  {"a+", "d", "let another be a voter before"},
		"the only one, dead":            {"a-", "d", "cluster recover"},
		"two dead of three, one leaves": {"a+ b- c-", "a b", "cluster recover"},
	} {
		c := Cluster{Document: &cluster.Cluster{}, Etcd: Etcd{Generation: 1, Voters: map[string]string{}}}
		for _, text := range strings.Fields(test.voters) {
			m := inventory.Machine{ID: text[:1], Hostname: text[:1], Role: machine.ControlPlane, LastSeen: noon}
			m.Etcd = inventory.EtcdState{Generation: 1, Voter: true, Healthy: text[1] == '+'}
			c.Machines = append(c.Machines, m)
			c.Document.Machines = append(c.Document.Machines, cluster.Machine{ID: m.ID, Role: m.Role})
			c.Etcd.Voters[m.ID] = "key"
		}
		doc := &cluster.Cluster{}
		for _, name := range strings.Fields(test.stay) {
			doc.Machines = append(doc.Machines, cluster.Machine{ID: name, Role: machine.ControlPlane})
		}
		err := c.keepsQuorum(doc, noon)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if c.keepsQuorum(doc, noon.Add(time.Hour)) == nil && len(missing(c.Document.Machines, doc.Machines)) > 0 {
			t.Errorf("%s: allowed though all are silent", name)
		}
	}
}

// TestUnknownHere: a machine that nobody let go of is not told to reset itself,
// though no cluster here has it: the boot service's state may be an older one.
func TestUnknownHere(t *testing.T) {
	o := newOffice(t)
	approve(t, o, 1, "key")
	got, err := o.Fetch(t.Context(), id(1), "key", Has{Digest: "ab"}, time.Millisecond)
	if err != nil || got.Released || !got.Unchanged || !strings.Contains(got.WaitingFor, "not known here") {
		t.Errorf("it hears %+v, %v", got, err)
	}
	m, err := o.Report(t.Context(), id(1), "key", Report{Phase: enroll.Ready})
	if err != nil || m.WaitingFor != unknownHere {
		t.Errorf("it is shown to wait for %q, %v", m.WaitingFor, err)
	}
}
