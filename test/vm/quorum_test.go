package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/qemu"
	"slipway/test/vmtest"
)

// virtualIP is the address for people in the quorum's stories: outside of what the boot
// service hands out.
const virtualIP = "10.77.0.50"

const (
	quorumPatience = 10 * time.Minute // four machines, from power-on to Ready
	quorumBudget   = 6 * time.Minute  // of that; the benchmark fails when it is passed, a story only tells
	apiPatience    = 60 * time.Second // until the API answers again; what it may take at most is apiLimit's to say
	joinPatience   = 8 * time.Minute  // a blank machine becomes a voter, Ready
)

// apiLimit is for how long writes may fail at most when a control plane is lost, under KVM; see
// Lab.Bound. Under emulation it is a minute and more. Seen there: 10.6 s on a computer 1.61
// times as slow as the reference, 15.6 s on one that was given 82 % of its time; and 14.9 s
// between two writes while every secret was replaced.
const apiLimit = 15 * time.Second

// TestQuorum is the story of three control planes: they form, lose the machine that leads, get
// a blank one in its place, and are restored from a snapshot on a machine they never had.
func TestQuorum(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	machines := []qemu.Machine{vmtest.BIOS("m1"), vmtest.BIOS("m2"), vmtest.BIOS("m3"), vmtest.BIOS("m4"), vmtest.BIOS("spare"), vmtest.BIOS("other")}
	for i := range machines {
		machines[i].MemoryMiB = 2048
	}
	lab := vmtest.New(t, vmtest.Machines(machines...), vmtest.Off())
	for _, m := range machines[:4] {
		lab.Switch(t, m.Name, qemu.PowerOn)
	}
	q := &quorum{Lab: lab}
	chapter(t, "three control planes and a worker form", func(t *testing.T) { q.form(t) })
	chapter(t, "the worker runs what is scheduled", q.worker)
	chapter(t, "the machine that leads is lost", q.loseLeader)
	chapter(t, "a blank machine takes its place", q.replace)
	chapter(t, "all is lost and restored elsewhere", q.restore)
}

// quorum is a lab whose cluster has several control planes.
type quorum struct {
	*vmtest.Lab
	lost string // hostname of the control plane that was lost
}

// long is a command that is agreed to and waited for, and must work.
func (q *quorum) long(t *testing.T, patience time.Duration, command ...string) {
	t.Helper()
	limit := q.Timeout(patience)
	out, err := q.TryWithin(limit+time.Minute, q.Slipway(append(command, "--yes", "--wait", "--timeout", limit.String())...)...)
	t.Logf("slipway %s:\n%s", strings.Join(command, " "), out)
	if err != nil {
		t.Fatal(err)
	}
}

// form makes three control planes and a worker of blank machines.
func (q *quorum) form(t *testing.T, flags ...string) {
	began := time.Now()
	q.long(t, quorumPatience, append([]string{"cluster", "create", "prod", "--control-planes", "3", "--workers", "1", "--virtual-ip", virtualIP}, flags...)...)
	t.Logf("Ready %.0f s after the machines were powered on; the benchmark's budget, from RAM, is %.0f s", time.Since(began).Seconds(), quorumBudget.Seconds())
	q.awaitVoters(t, 3, recoverPatience)
	q.keep(t, "before", "first")
}

// worker: it holds no CA key, so that it asks for its kubelet's certificate, and pods come to it.
func (q *quorum) worker(t *testing.T) {
	q.Await(t, "the worker's certificate was asked for and issued", apiPatience, func() error {
		out, err := q.TryKubectl("get", "csr")
		if err == nil && !strings.Contains(out, "Approved,Issued") {
			err = errors.New(out)
		}
		return err
	})
	q.place(t, "there")
	awaitPods(t, q.Lab, "default", 1, podPatience)
	q.shows(t, "the pod's node, the worker since there is one", "prod-worker-1", "get", "pod", "there", "-o", "jsonpath={.spec.nodeName}")
	q.Await(t, "exec reaches the worker's pod", podPatience, func() error {
		out, err := q.TryKubectl("exec", "there", "--", "busybox", "hostname")
		if err == nil && strings.TrimSpace(out) != "there" {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
}

// shows waits until kubectl answers, and then wants the answer to be a text: four machines
// that have just formed may be too busy for a handshake, and what is asked for is there.
func (q *quorum) shows(t *testing.T, what, want string, args ...string) {
	t.Helper()
	var out string
	q.Await(t, what, apiPatience, func() (err error) {
		out, err = q.TryKubectl(args...)
		return err
	})
	if strings.TrimSpace(out) != want {
		t.Errorf("%s: %q, want %q", what, out, want)
	}
}

// member is one of etcd's, as `slipway etcd members -o json` prints it.
type member struct {
	Name    string `json:"name"`
	Learner bool   `json:"learner"`
	Leader  bool   `json:"leader"`
	Healthy bool   `json:"healthy"`
}

func (q *quorum) members() ([]member, error) {
	out, err := q.TryCLI("etcd", "members", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Members []member `json:"members"`
	}
	err = json.Unmarshal([]byte(out), &list)
	return list.Members, err
}

// leader is the hostname of the machine that leads etcd.
func (q *quorum) leader(t *testing.T) string {
	t.Helper()
	list, err := q.members()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(m member) bool { return m.Leader })
	if i < 0 {
		t.Fatalf("nobody leads: %+v", list)
	}
	return list[i].Name
}

// awaitVoters waits until etcd consists of n healthy voters and nothing else.
func (q *quorum) awaitVoters(t *testing.T, n int, within time.Duration) {
	t.Helper()
	q.Await(t, fmt.Sprintf("etcd has %d healthy voters", n), within, func() error {
		list, err := q.members()
		if err != nil {
			return err
		}
		voters := slices.DeleteFunc(slices.Clone(list), func(m member) bool { return m.Learner || !m.Healthy })
		if len(voters) != n || len(list) != n {
			return fmt.Errorf("members: %+v", list)
		}
		return nil
	})
}

// loseLeader cuts the power of the machine that leads etcd. Writes go on, through the virtual
// address and without anybody's help; a new pod finds its node, and a new Service its pod.
func (q *quorum) loseLeader(t *testing.T) {
	q.lost = q.leader(t)
	t.Logf("%s leads", q.lost)
	machine := q.machineOf(t, q.lost)
	if err := q.errorsEnd(t, "leader", func() error { return q.Power(t.Context(), machine, qemu.PowerOff) }); err != nil {
		t.Fatal(err)
	}
	q.keep(t, "after", "second")
	q.place(t, "late")
	awaitPods(t, q.Lab, "default", 2, recoverPatience)
	q.Await(t, "a new Service leads from the worker's first pod to its new one", podPatience, func() error {
		if _, err := q.TryKubectl("expose", "pod", "late", "--port=80", "--target-port=8080"); err != nil && !strings.Contains(err.Error(), "already exists") {
			return err
		}
		out, err := q.TryKubectl("exec", "there", "--", "busybox", "timeout", "10", "busybox", "wget", "-q", "-O", "-", "http://late/")
		if err == nil && strings.TrimSpace(out) != "late" {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
}

// keep writes a ConfigMap that mustHave looks for. It is patient: how soon the API takes a write
// when a machine was lost is what errorsEnd is about.
func (q *quorum) keep(t *testing.T, name, written string) {
	t.Helper()
	q.Await(t, "ConfigMap "+name+" is written", apiPatience, func() error {
		_, err := q.TryKubectl("create", "configmap", name, "--from-literal=written="+written)
		if err != nil && strings.Contains(err.Error(), "already exists") {
			return nil // the answer to an earlier try was lost
		}
		return err
	})
}

// place gives the cluster a pod to run, as patiently.
func (q *quorum) place(t *testing.T, name string) {
	t.Helper()
	q.Await(t, "pod "+name+" is accepted", apiPatience, func() error {
		_, err := q.TryKubectlStdin(web(name), "apply", "-f", "-")
		return err
	})
}

// errorsEnd writes from the beginning of a loss until so many writes in a row are accepted, after it
// was done, that the errors have ended, and wants them to have ended in time. The loss may take a while,
// or end with an error, which is returned: what it went through may be what was lost. The writes are
// named by what that is.
func (q *quorum) errorsEnd(t *testing.T, lost string, lose func() error) (loss error) {
	t.Helper()
	begin, patience, done := time.Now(), q.Timeout(apiPatience), make(chan error, 1)
	go func() { done <- lose() }()
	var last time.Duration
	for i, accepted, over := 0, 0, false; accepted < 20; i++ {
		_, err := q.TryKubectl("create", "configmap", fmt.Sprintf("%s-%d", lost, i), "--request-timeout=5s")
		since := time.Since(begin)
		switch {
		case err != nil:
			accepted, last = 0, since
		case over:
			accepted++
		}
		if !over && len(done) > 0 {
			over, loss = true, <-done
			t.Logf("lost is %s, after %.1f s: %v", lost, since.Seconds(), loss)
		}
		if (err != nil || !over) && since > patience {
			t.Fatalf("writes fail %v after the loss (%s), or it is not done: %v", since.Round(time.Second), lost, err)
		}
	}
	q.inTime(t, "from the loss ("+lost+") to the last error, before 20 accepted writes in a row", last)
	return loss
}

// inTime prints for how long writes failed beside how long they may, and fails the story when
// that was longer.
func (q *quorum) inTime(t *testing.T, what string, took time.Duration) {
	t.Helper()
	most := q.Bound(apiLimit)
	t.Logf("%s: %.1f s, and the bound is %.1f s", what, took.Seconds(), most.Seconds())
	if took > most {
		t.Errorf("that is longer than %v, for which %v under KVM stand on this computer", most, apiLimit)
	}
}

// machineOf is the lab's name of the machine that is a node.
func (q *quorum) machineOf(t *testing.T, hostname string) string {
	t.Helper()
	var all struct {
		Machines []struct {
			ID       string `json:"id"`
			Hostname string `json:"hostname"`
		} `json:"machines"`
	}
	if err := json.Unmarshal([]byte(q.CLI(t, "machines", "list", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	status, err := q.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all.Machines {
		for _, guest := range status.Machines {
			if m.Hostname == hostname && m.ID == strings.ReplaceAll(guest.MAC, ":", "-") {
				return guest.Name
			}
		}
	}
	t.Fatalf("no machine is %s: %+v", hostname, all)
	return ""
}

// replace puts a blank machine in the lost one's place, by one command.
func (q *quorum) replace(t *testing.T) {
	q.Switch(t, "spare", qemu.PowerOn)
	awaitPhase(t, q.Lab, "spare", "approved", enrolPatience)
	q.long(t, joinPatience, "node", "join", q.MachineID(t, "spare"), "--cluster", "prod", "--replace", q.lost)
	q.awaitVoters(t, 3, recoverPatience)
	q.mustHave(t, "before", "first")
}

// restore takes a snapshot, cuts the power of every machine and rebuilds the cluster from the
// snapshot on a machine that had no part in it, at another address.
func (q *quorum) restore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etcd.db")
	t.Logf("slipway cluster snapshot: %s", q.CLI(t, "cluster", "snapshot", "prod", "--file", file))
	status, err := q.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range status.Machines {
		q.Switch(t, m.Name, qemu.PowerOff)
	}
	document := filepath.Join(t.TempDir(), "prod.yaml")
	text := fmt.Sprintf("name: prod\nvirtualIP: %s\nmachines:\n- {id: %s, role: control-plane, hostname: prod-new-1}\n", virtualIP, q.MachineID(t, "other"))
	if err := os.WriteFile(document, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	q.Switch(t, "other", qemu.PowerOn)
	awaitPhase(t, q.Lab, "other", "approved", enrolPatience)
	q.long(t, joinPatience, "cluster", "restore", "prod", "--snapshot", file, "-f", document)
	q.awaitVoters(t, 1, recoverPatience)
	q.mustHave(t, "before", "first")
	q.mustHave(t, "after", "second")
}

// mustHave asks for what was written to a ConfigMap.
func (q *quorum) mustHave(t *testing.T, name, want string) {
	t.Helper()
	q.Await(t, "ConfigMap "+name+" is there", recoverPatience, func() error {
		got, err := q.TryKubectl("get", "configmap", name, "-o", "jsonpath={.data.written}")
		if err == nil && got != want {
			err = fmt.Errorf("it says %q, want %q", got, want)
		}
		return err
	})
}

// web is a pod that says its name over HTTP.
func web(name string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `","labels":{"app":"` + name + `"}},"spec":{
		"containers":[{"name":"main","image":"slipway.local/busybox:1","command":["busybox","sh","-c",
			"mkdir /tmp/www && echo ` + name + ` >/tmp/www/index.html && exec busybox httpd -f -p 8080 -h /tmp/www"]}]}}`
}
