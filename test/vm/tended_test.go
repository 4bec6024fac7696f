package vm

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/configs/cluster"
	"slipway/configs/machine"
	"slipway/qemu"
	"slipway/test/vmtest"
)

// rotatePatience is for all rotations at once: the Kubernetes CA's alone lasts 16 minutes by
// its settling times, which no computer shortens; the rest is for machines that take a config
// in each of three phases, one after the other.
const rotatePatience = 30 * time.Minute

// TestQuorumRotates: every secret of three control planes and a worker is replaced while they work.
// Certificates last for a quarter of an hour, so that all are renewed for their age as well.
func TestQuorumRotates(t *testing.T) {
	needLong(t)
	machines := []qemu.Machine{vmtest.BIOS("m1"), vmtest.BIOS("m2"), vmtest.BIOS("m3"), vmtest.BIOS("m4")}
	for i := range machines {
		machines[i].MemoryMiB = 2048
	}
	q := &quorum{Lab: vmtest.New(t, vmtest.Machines(machines...))}
	chapter(t, "three control planes and a worker form", q.formShortLived)
	chapter(t, "each API server hangs once", q.hang)
	chapter(t, "every secret is replaced", q.rotate)
}

// TestOneBecomesThree: a control plane that runs alone gets two others by one command. Their clocks
// are years off when they start.
func TestOneBecomesThree(t *testing.T) {
	needLong(t)
	machines := []qemu.Machine{vmtest.BIOS("m1"), vmtest.BIOS("m2"), vmtest.BIOS("m3")}
	for i := range machines {
		machines[i].MemoryMiB = 2048
	}
	machines[1].Clock, machines[2].Clock = longAgo, farAway
	q := &quorum{Lab: vmtest.New(t, vmtest.Machines(machines...), vmtest.Off())}
	snapshot := filepath.Join(t.TempDir(), "etcd.db")
	chapter(t, "one control plane forms", func(t *testing.T) {
		q.Switch(t, "m1", qemu.PowerOn)
		q.long(t, bootPatience, "cluster", "create", "prod", "--virtual-ip", virtualIP)
		q.awaitVoters(t, 1, recoverPatience)
		q.keep(t, "before", "first")
		t.Logf("slipway cluster snapshot: %s", q.CLI(t, "cluster", "snapshot", "prod", "--file", snapshot))
	})
	chapter(t, "two more join by one document", q.becomeThree)
	chapter(t, "etcd goes back to before they joined", func(t *testing.T) { q.forgetNodes(t, snapshot) })
	chapter(t, "the first loses its power", func(t *testing.T) {
		q.Switch(t, "m1", qemu.PowerOff)
		q.mustHave(t, "before", "first")
		q.keep(t, "after", "second")
	})
}

// TestEtcdGrows is the story of an etcd on machines of its own: its three members become five, it
// goes back to a snapshot on the same machines, and is recovered after most of them are lost.
func TestEtcdGrows(t *testing.T) {
	needLong(t)
	names := []string{"plane", "first", "second", "third", "fourth", "fifth"}
	var machines []qemu.Machine
	for _, name := range names {
		machine := vmtest.BIOS(name)
		machine.MemoryMiB = 2048
		machines = append(machines, machine)
	}
	q := &quorum{Lab: vmtest.New(t, vmtest.Machines(machines...), vmtest.Off())}
	chapter(t, "three machines for etcd and a control plane form", func(t *testing.T) { q.formApart(t, names[:4]) })
	chapter(t, "a fourth and a fifth join", q.grow)
	chapter(t, "the leader hands over", q.handOver)
	chapter(t, "all goes back to what it was", q.goBack)
	chapter(t, "most are lost and the rest is recovered", q.recover)
}

// formApart makes a control plane of the first machine, and members of etcd of the others.
func (q *quorum) formApart(t *testing.T, names []string) {
	document, role := "name: prod\nmachines:\n", "control-plane"
	for _, name := range names {
		q.Switch(t, name, qemu.PowerOn)
		document += fmt.Sprintf("- {id: %s, role: %s}\n", q.MachineID(t, name), role)
		role = "etcd"
	}
	q.create(t, document)
	q.Kubectl(t, "create", "secret", "generic", "kept", "--from-literal=word="+secretWord)
}

// shortLife is how long certificates last there. A worker's is renewed after half of it: when a third of
// its life is left, to which belong the five minutes by which it is backdated, and another minute.
const shortLife = 15 * time.Minute

// formShortLived makes three control planes and a worker whose certificates end soon.
func (q *quorum) formShortLived(t *testing.T) {
	q.create(t, fmt.Sprintf(`{name: prod, virtualIP: %s, certificateLifetime: %s, machines: [
		{id: %s, role: control-plane}, {id: %s, role: control-plane}, {id: %s, role: control-plane}, {id: %s, role: worker}]}`,
		virtualIP, shortLife, q.MachineID(t, "m1"), q.MachineID(t, "m2"), q.MachineID(t, "m3"), q.MachineID(t, "m4")))
}

// hang stops each API server for a while: its machine is well, its port open, and nothing is answered.
// Everybody goes on with the other two: writes, the scheduler, the worker's kubelet.
func (q *quorum) hang(t *testing.T) {
	planes := []string{"prod-cp-1", "prod-cp-2", "prod-cp-3"}
	for _, plane := range planes {
		q.Apply(t, hand(plane))
	}
	awaitPods(t, q.Lab, "kube-system", len(planes), podPatience)
	for n, plane := range planes {
		_ = q.errorsEnd(t, plane, func() error { return q.signal(plane, "STOP") }) // isStopped tells
		q.Await(t, "the API server of "+plane+" is stopped", apiPatience, func() error { return q.isStopped(plane) })
		q.place(t, "beside-"+plane)
		awaitPods(t, q.Lab, "default", n+1, recoverPatience)
		q.Await(t, "the API server of "+plane+" goes on", apiPatience, func() error { return q.signal(plane, "CONT") })
	}
}

// hand is a pod that reaches the programs of a node.
func hand(node string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"hand-` + node + `","namespace":"kube-system"},"spec":{
		"nodeName":"` + node + `","hostPID":true,"tolerations":[{"operator":"Exists"}],
		"containers":[{"name":"main","image":"slipway.local/busybox:1","command":["busybox","sleep","86400"],"securityContext":{"privileged":true}}]}}`
}

// signal sends a signal to a node's API server.
func (q *quorum) signal(node, signal string) error {
	_, err := q.TryKubectl("exec", "-n", "kube-system", "hand-"+node, "--", "busybox", "killall", "-"+signal, "kube-apiserver")
	return err
}

// isStopped asks the kernel of a node.
func (q *quorum) isStopped(node string) error {
	out, err := q.TryKubectl("exec", "-n", "kube-system", "hand-"+node, "--", "busybox", "sh", "-c", "busybox grep State: /proc/$(busybox pidof kube-apiserver)/status")
	if err == nil && !strings.Contains(out, "T (stopped)") {
		err = errors.New(out)
	}
	return err
}

// create makes a cluster of three voters by its document, and writes to it.
func (q *quorum) create(t *testing.T, document string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prod.yaml")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	q.long(t, quorumPatience, "cluster", "create", "-f", file)
	q.awaitVoters(t, 3, recoverPatience)
	q.keep(t, "before", "first")
}

// rotate replaces all CAs and the encryption key at the same time, the boot service's own CA
// with them, and writes meanwhile: the API is never gone for longer than if a control plane died.
func (q *quorum) rotate(t *testing.T) {
	q.Kubectl(t, "create", "secret", "generic", "kept", "--from-literal=word="+secretWord)
	old := q.issueKubeconfig(t)
	q.CLI(t, "cluster", "rotate-ca", "prod", "--ca", "all", "--yes")
	q.CLI(t, "cluster", "rotate-encryption-key", "prod", "--yes")
	q.CLI(t, "ca", "rotate", "--yes")
	kubelet, requests := q.kubeletStart(t), map[string]time.Time{}
	w, said := writer{quorum: q, last: time.Now()}, ""
	q.Await(t, "everything is rotated", rotatePatience, func() error {
		w.write(t)
		q.noteRequests(t, requests)
		state, err := q.rotations()
		if err != nil {
			return err
		}
		if state != said {
			said = state
			t.Logf("under way: %s", state)
		}
		if state != "" {
			return errors.New(state)
		}
		return nil
	})
	q.inTime(t, fmt.Sprintf("the longest time without an accepted write, of %d", w.writes), w.longest)
	q.awaitVoters(t, 3, recoverPatience)
	q.secretIsKept(t)
	q.mustHave(t, "before", "first")
	if out, err := q.Try(filepath.Join(q.Dir(), "kubectl"), "--kubeconfig", old, "get", "nodes"); err == nil {
		t.Errorf("a kubeconfig of the CA before is still good: %s", out)
	}
	// The first, its renewal before its end, and the one after the CA was replaced.
	times := slices.SortedFunc(maps.Values(requests), time.Time.Compare)
	if len(times) < 3 || times[1].Sub(times[0]) > shortLife*2/3 {
		t.Errorf("the worker asked for certificates at %v", times)
	}
	if now := q.kubeletStart(t); now != kubelet {
		t.Errorf("the worker's kubelet was restarted: it began at %s and at %s", kubelet, now)
	}
	q.worksStill(t)
}

// noteRequests adds the requests for certificates that were issued, and when they were made. Those
// whose certificate has ended are deleted, so that one look does not show all.
func (q *quorum) noteRequests(t *testing.T, requests map[string]time.Time) {
	out, err := q.TryKubectl("get", "csr", "-o", "jsonpath={range .items[?(@.status.certificate)]}{.metadata.name} {.metadata.creationTimestamp} {end}", "--request-timeout=5s")
	if err != nil {
		return // the next look will show them
	}
	for issued := range slices.Chunk(strings.Fields(out), 2) {
		if _, known := requests[issued[0]]; known {
			continue
		}
		at, err := time.Parse(time.RFC3339, issued[1])
		if err != nil {
			t.Error(err)
		}
		requests[issued[0]] = at
		t.Logf("certificate %d was asked for at %s: %s", len(requests), issued[1], issued[0])
	}
}

// kubeletStart is when the worker's kubelet was started, in seconds since 1970, as it says itself.
func (q *quorum) kubeletStart(t *testing.T) (seconds string) {
	t.Helper()
	q.Await(t, "the worker's kubelet says since when it runs", apiPatience, func() error {
		metrics, err := q.TryKubectl("get", "--raw", "/api/v1/nodes/prod-worker-1/proxy/metrics")
		_, rest, found := strings.Cut(metrics, "\nprocess_start_time_seconds ")
		if err == nil && !found {
			err = errors.New("no process_start_time_seconds")
		}
		seconds, _, _ = strings.Cut(rest, "\n")
		return err
	})
	return seconds
}

// worksStill runs a pod and reaches into it, by the kubelet's and the API server's new certificates.
func (q *quorum) worksStill(t *testing.T) {
	t.Helper()
	q.Apply(t, web("turned"))
	q.Await(t, "a new pod is Ready", podPatience, func() error {
		_, err := q.TryKubectl("wait", "--for=condition=Ready", "pod/turned", "--timeout=10s")
		return err
	})
	q.Await(t, "exec reaches the worker's pod", podPatience, func() error {
		_, err := q.TryKubectl("exec", "turned", "--", "busybox", "true")
		return err
	})
}

// secretWord is in the Secret that is kept, through another encryption key and another etcd.
const secretWord = "rosebud"

func (q *quorum) secretIsKept(t *testing.T) {
	t.Helper()
	got, err := base64.StdEncoding.DecodeString(q.Kubectl(t, "get", "secret", "kept", "-o", "jsonpath={.data.word}"))
	if err != nil || string(got) != secretWord {
		t.Errorf("the Secret says %q, %v", got, err)
	}
}

// writer writes a ConfigMap a turn, and knows how long none was accepted.
type writer struct {
	*quorum
	writes  int
	last    time.Time // when a write was accepted
	longest time.Duration
}

// write ends the story when no write is accepted any more.
func (w *writer) write(t *testing.T) {
	_, err := w.TryKubectl("create", "configmap", fmt.Sprint("turn-", w.writes), "--request-timeout=5s")
	silent := time.Since(w.last)
	switch {
	case err == nil || strings.Contains(err.Error(), "already exists"): // the answer to an earlier try was lost
		w.writes, w.longest, w.last = w.writes+1, max(w.longest, silent), time.Now()
	case silent > w.Timeout(apiPatience):
		t.Fatalf("no write was accepted for %v: %v", silent.Round(time.Second), err)
	default: // a kubeconfig of the CA before is good no more: the next kubectl asks for another
		_ = os.Remove(filepath.Join(w.Dir(), "kubeconfig")) // gone already: also good
	}
}

// issueKubeconfig has a kubeconfig written to a file and returns its path.
func (q *quorum) issueKubeconfig(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	q.CLI(t, "cluster", "kubeconfig", "prod", "--file", path)
	if out, err := q.Try(filepath.Join(q.Dir(), "kubectl"), "--kubeconfig", path, "get", "nodes"); err != nil {
		t.Fatalf("the kubeconfig is not good: %s, %v", out, err)
	}
	return path
}

// rotations is what is under way, in a line; empty: nothing.
func (q *quorum) rotations() (string, error) {
	type rotation struct {
		What  string `json:"what"`
		Phase string `json:"phase"`
	}
	var prod struct {
		Rotations []rotation `json:"rotations"`
	}
	var authority rotation
	for command, into := range map[string]any{"cluster status prod": &prod, "ca status": &authority} {
		out, err := q.TryCLI(append(strings.Fields(command), "-o", "json")...)
		if err == nil {
			err = json.Unmarshal([]byte(out), into)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", command, err)
		}
	}
	var all []string
	for _, r := range append(prod.Rotations, rotation{"boot service's CA", authority.Phase}) {
		if r.Phase != "" {
			all = append(all, r.What+": "+r.Phase)
		}
	}
	return strings.Join(all, ", "), nil
}

// becomeThree adds two control planes to the cluster's document. What was written is there.
func (q *quorum) becomeThree(t *testing.T) {
	document := q.CLI(t, "cluster", "document", "prod")
	for _, name := range []string{"m2", "m3"} {
		q.Switch(t, name, qemu.PowerOn)
		awaitPhase(t, q.Lab, name, "approved", enrolPatience)
	}
	file := filepath.Join(t.TempDir(), "prod.yaml")
	if err := os.WriteFile(file, []byte(withControlPlanes(t, document, q.MachineID(t, "m2"), q.MachineID(t, "m3"))), 0o600); err != nil {
		t.Fatal(err)
	}
	q.long(t, 2*joinPatience, "cluster", "update", "-f", file)
	q.awaitVoters(t, 3, recoverPatience)
	q.mustHave(t, "before", "first")
}

// forgetNodes restores a snapshot that knows only the first of three Nodes. The others register
// anew by themselves before the command ends, and run what is placed on them.
func (q *quorum) forgetNodes(t *testing.T, snapshot string) {
	q.long(t, joinPatience, "cluster", "restore", "prod", "--snapshot", snapshot)
	q.shows(t, "the Nodes", "3", "get", "nodes", "-o", `go-template={{len .items}}`)
	q.awaitVoters(t, 3, recoverPatience)
	q.mustHave(t, "before", "first")
	q.Apply(t, strings.Replace(web("forgotten"), `"spec":{`, `"spec":{"nodeName":"prod-cp-3",`, 1))
	awaitPods(t, q.Lab, "default", 1, podPatience)
}

// withControlPlanes is a cluster's document with more of them.
func withControlPlanes(t *testing.T, document string, ids ...string) string {
	t.Helper()
	doc, err := cluster.Parse([]byte(document), "prod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		doc.Machines = append(doc.Machines, cluster.Machine{ID: id, Role: machine.ControlPlane, Hostname: fmt.Sprintf("prod-cp-%d", i+2)})
	}
	text, err := cluster.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// grow makes five of three.
func (q *quorum) grow(t *testing.T) {
	for _, name := range []string{"fourth", "fifth"} {
		q.Switch(t, name, qemu.PowerOn)
		awaitPhase(t, q.Lab, name, "approved", enrolPatience)
		q.long(t, joinPatience, "node", "join", q.MachineID(t, name), "--cluster", "prod", "--role", "etcd")
	}
	q.awaitVoters(t, 5, recoverPatience)
	q.mustHave(t, "before", "first")
}

// handOver has the leader give up its place, and all members give back what they do not use.
func (q *quorum) handOver(t *testing.T) {
	before := q.leader(t)
	t.Logf("slipway etcd forfeit-leadership:\n%s", q.CLI(t, "etcd", "forfeit-leadership"))
	if after := q.leader(t); after == before {
		t.Errorf("%s still leads", after)
	}
	t.Logf("slipway etcd defrag:\n%s", q.CLI(t, "etcd", "defrag"))
	q.awaitVoters(t, 5, recoverPatience)
}

// goBack restores a snapshot on the machines that it was taken of: what was written after it
// is gone, on all five.
func (q *quorum) goBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etcd.db")
	t.Logf("slipway cluster snapshot: %s", q.CLI(t, "cluster", "snapshot", "prod", "--file", file))
	q.Kubectl(t, "create", "configmap", "regretted", "--from-literal=written=later")
	q.long(t, joinPatience, "cluster", "restore", "prod", "--snapshot", file)
	q.awaitVoters(t, 5, recoverPatience)
	q.mustHave(t, "before", "first")
	q.secretIsKept(t)
	if out := q.Kubectl(t, "get", "configmap", "regretted", "--ignore-not-found"); out != "" {
		t.Errorf("what was written after the snapshot is still there: %s", out)
	}
}

// recover cuts the power of three of the five, the leader among them, and has the two that are
// left go on.
func (q *quorum) recover(t *testing.T) {
	q.Kubectl(t, "create", "configmap", "last", "--from-literal=written=last")
	if out, err := q.TryCLI("cluster", "recover", "prod", "--yes"); err == nil || !strings.Contains(err.Error(), noNeed) {
		t.Errorf("a recovery while there is a quorum: %s, %v", out, err)
	}
	for _, hostname := range q.leaderAndTwoMore(t) {
		q.Switch(t, q.machineOf(t, hostname), qemu.PowerOff)
	}
	limit := q.Timeout(joinPatience)
	q.Await(t, "those that are left know of no leader, and are recovered", joinPatience+time.Minute, func() error {
		out, err := q.TryWithin(limit+time.Minute, q.Slipway("cluster", "recover", "prod", "--yes", "--wait", "--timeout", limit.String())...)
		t.Logf("slipway cluster recover:\n%s", out)
		if err != nil && !strings.Contains(out, noNeed) {
			t.Fatalf("recover the cluster: %v", err)
		}
		return err
	})
	q.awaitVoters(t, 2, recoverPatience)
	q.mustHave(t, "before", "first")
	q.mustHave(t, "last", "last")
	q.secretIsKept(t)
}

// noNeed is in the refusal to recover a cluster whose quorum answers.
const noNeed = "nothing to recover"

// leaderAndTwoMore are the hostnames of three of etcd's machines.
func (q *quorum) leaderAndTwoMore(t *testing.T) []string {
	t.Helper()
	names := []string{q.leader(t)}
	list, err := q.members()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.Name != names[0] && len(names) < 3 {
			names = append(names, m.Name)
		}
	}
	return names
}
