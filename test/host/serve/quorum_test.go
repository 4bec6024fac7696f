package serve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/test/netns"
)

// told gives a driven machine an order, and wants its answer to begin with a text.
func (m *actor) told(order, want string) {
	m.t.Helper()
	if _, err := fmt.Fprintln(m, order); err != nil {
		m.t.Fatal(err)
	}
	if !m.Scan() || !strings.HasPrefix(m.Text(), want) {
		m.t.Fatalf("told to %s, the machine says %q, want %q", order, m.Text(), want)
	}
}

// power boots driven machines that a rule approves.
func (r *rack) power(hosts ...*netns.Host) (machines []*actor) {
	r.t.Helper()
	for _, h := range hosts {
		m := r.play(h, true)
		m.says("approved")
		machines = append(machines, m)
	}
	return machines
}

// TestACrashNeverStartsEtcdTwice goes through the life of three control planes,
// with a boot service that is killed at every turn.
func TestACrashNeverStartsEtcdTwice(t *testing.T) {
	r := newRack(t)
	service := r.serve("--approve", "any")
	crash := func() {
		t.Helper()
		_ = service.Process.Kill()
		_ = service.Wait()
		service = r.serve("--approve", "any")
	}
	hosts := make([]*netns.Host, 4)
	for i := range hosts {
		hosts[i] = r.Host(fmt.Sprintf("02:00:00:00:00:%02d", i+1))
	}
	m := r.power(hosts[:3]...)
	r.slipway(2, "cluster", "create", "prod", "--control-planes", "2", "--yes")
	if plan := r.slipway(0, "cluster", "create", "prod", "--control-planes", "3", "--virtual-ip", "10.99.0.200", "--yes", "--wait=false"); !strings.Contains(plan, "10.99.0.200") {
		t.Errorf("the plan is\n%s", plan)
	}
	crash()
	m[0].told("fetch", "config prod-cp-1 of generation 1, 3 members, starts true")
	m[1].told("fetch", "waits") // for the first one, which sets the cluster up
	m[0].told("redeem", "may")
	crash()
	m[0].told("redeem", "may") // the answer was lost
	m[0].told("done", "may")
	crash()
	m[0].told("redeem", "failed_precondition")
	m[0].told("ack", "stored")
	m[0].told("ready", "said")
	m[1].told("fetch", "config prod-cp-2 of generation 1, 3 members, starts false")
	crash()
	m[2].told("fetch", "waits") // for the second one, which joins
	m[1].told("ack", "stored")
	m[1].told("ready", "said")
	m[2].told("fetch", "config prod-cp-3 of generation 1, 3 members, starts false")
	m[2].told("ack", "stored")
	m[2].told("ready", "said")
	r.slipway(0, "cluster", "create", "prod", "--control-planes", "3", "--yes", "--timeout", "1m")

	// The one that started etcd loses all it had, and only joins.
	m[0] = r.power(hosts[0])[0]
	m[0].told("fetch", "config prod-cp-1 of generation 1, 3 members, starts false")
	m[0].told("ack", "stored")
	m[0].told("learner", "said")
	if status := r.slipway(0, "cluster", "status", "prod"); !strings.Contains(status, "learner") || !strings.Contains(status, "voter") || !strings.Contains(status, "10.99.0.200:6443") {
		t.Errorf("the status is\n%s", status)
	}
	m[0].told("ready", "said")
	m[0].told("renew", "trusts 1, signed by the first true")
	r.replace(hosts[3], m)
	r.loseEverything(hosts[0])
}

// replace puts a fourth machine in the third one's place.
func (r *rack) replace(spare *netns.Host, m []*actor) {
	r.t.Helper()
	r.slipway(0, "node", "join", "02-00-00-00-00-04", "--cluster", "prod", "--replace", "prod-cp-3", "--yes")
	r.slipway(0, "node", "join", "02-00-00-00-00-04", "--replace", "prod-cp-3", "--yes") // once more is no error
	m[2].told("fetch", "released")
	fourth := r.power(spare)[0]
	fourth.told("fetch", "config prod-cp-3 of generation 1, 3 members, starts false")
	fourth.told("ack", "stored")
	fourth.told("ready", "said")
	m[0].told("fetch", "config prod-cp-1 of generation 1, 3 members, starts false")
	m[1].told("fetch", "waits") // for the first one
	m[0].told("ready", "said")
	m[1].told("fetch", "config prod-cp-2")
	m[1].told("ready", "said")

	document := r.slipway(0, "cluster", "document")
	end := strings.Index(document, "- id: 02-00-00-00-00-02")
	file := filepath.Join(r.t.TempDir(), "prod.yaml")
	if err := os.WriteFile(file, []byte(document[:end]), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if out := r.slipway(1, "cluster", "update", "-f", file, "--yes"); !strings.Contains(out, "etcd would lose its quorum") {
		r.t.Errorf("a removal of two of three: %s", out)
	}
	r.slipway(0, "cluster", "update", "-f", file, "--yes", "--force")
}

// loseEverything restarts the last machine that had etcd's data: it does not
// begin anew, for others had the data too, and says who can mend it. Given up, its
// cluster makes way for another.
func (r *rack) loseEverything(h *netns.Host) {
	r.t.Helper()
	last := r.power(h)[0]
	last.told("fetch", "waits")
	if status := r.slipway(0, "cluster", "status"); !strings.Contains(status, "slipway cluster restore") {
		r.t.Errorf("the status is\n%s", status)
	}
	r.slipway(1, "cluster", "delete", "nosuch", "--yes")
	r.slipway(0, "cluster", "delete", "prod", "--yes")
	r.slipway(0, "cluster", "create", "again", "--yes", "--wait=false")
	last.told("fetch", "config again-cp-1 of generation 1, 1 members, starts true")
}
