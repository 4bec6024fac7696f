// Package controlplane runs a whole control plane on this computer: the units
// of a control-plane machine with the payload's real programs, in namespaces of
// their own, and asks it with kubectl for what users rely on.
package controlplane

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/configs/kubeconfig"
	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
	"slipway/nodeinit/worker"
	"slipway/test/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// startup bounds the whole start, on the slowest computer.
const startup = 5 * time.Minute

func TestControlPlane(t *testing.T) {
	netns.Require(t, "ip")
	out, err := exec.Command("ip", "addr", "add", identity.Address.String()+"/24", "dev", "lo").CombinedOutput()
	if err != nil {
		t.Fatalf("set address: %v: %s", err, out)
	}
	cfg := newConfig(t)
	newRoot(t)
	node := start(t, cfg)
	writeAdmin(t, cfg)
	bootstrap := pathOf(t, "bootstrap", kubeconfig.Config{User: "bootstrap", Token: cfg.Cluster.BootstrapToken}, cfg)

	t.Run("an admin may do everything", func(t *testing.T) {
		kubectl(t, "", "create", "namespace", "demo")
		want(t, kubectl(t, "", "auth", "can-i", "*", "*"), "yes")
	})
	t.Run("secrets are encrypted in etcd", testEncryption)
	t.Run("pod security keeps privileged pods out", testPodSecurity)
	t.Run("a kubelet may join with the bootstrap token", func(t *testing.T) { testJoin(t, bootstrap, cfg) })
	t.Run("strangers see health only", testAnonymous)
	t.Run("the DNS service answers", testDNS)
	t.Run("what is deleted comes back", func(t *testing.T) { testReturn(t, cfg) })
	t.Run("a drained node's pods go as their budget lets them", func(t *testing.T) { testDrain(t, cfg) })
	t.Run("a Node that leaves is deleted, and none of its name", func(t *testing.T) { testLeaving(t, cfg) })
	t.Run("metrics are for those with a certificate", testMetrics)
	t.Run("certificates are renewed while all runs", func(t *testing.T) { testRenewal(t, node, cfg) })
	t.Run("the encryption key is replaced", func(t *testing.T) { testNewKey(t, node, cfg) })
	t.Run("the service-account key is replaced", func(t *testing.T) { testNewAccountKey(t, node, cfg) })
	t.Run("the CAs are replaced", func(t *testing.T) { testNewCAs(t, node, cfg) })
	t.Run("without etcd the virtual IP finds an API server that answers", func(t *testing.T) { testWithoutEtcd(t, node) })
}

// start runs the units until the test ends, and returns when all are ready.
func start(t *testing.T, cfg *machine.Config) *node {
	t.Helper()
	n := &node{T: t, supervisor: supervise.New(slog.New(slog.DiscardHandler)), logs: map[string]*bytes.Buffer{}}
	t.Cleanup(n.stop)
	n.apply(cfg)
	return n
}

// node is the machine: what runs on it.
type node struct {
	*testing.T
	supervisor *supervise.Supervisor
	logs       map[string]*bytes.Buffer
}

func (n *node) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.supervisor.Stop(ctx); err != nil {
		n.Errorf("stop: %v", err)
	}
	for unit, log := range n.logs {
		if n.Failed() {
			n.Logf("the end of %s's log:\n%s", unit, tail(log.Bytes()))
		}
	}
}

// apply does what PID 1 does with a config, and returns when all units are ready.
func (n *node) apply(cfg *machine.Config) {
	t := n.T
	t.Helper()
	units := unitsOf(cfg)
	files, err := controlplane.Files(cfg, identity)
	must(t, err)
	must(t, proc.WriteFiles(files))
	proc.Runner{Log: func(unit string) io.Writer {
		if n.logs[unit] == nil {
			n.logs[unit] = &bytes.Buffer{}
		}
		return n.logs[unit]
	}}.Adopt(units)
	began := time.Now()
	must(t, n.supervisor.Apply(t.Context(), units))
	ctx, cancel := context.WithTimeout(t.Context(), startup)
	defer cancel()
	reported := map[string]bool{}
	err = n.supervisor.Watch(ctx, func(all []supervise.Status) error {
		for _, s := range all {
			if (s.State == supervise.Ready || s.State == supervise.Done) && !reported[s.Name] {
				reported[s.Name] = true
				t.Logf("%s ready after %.1f s", s.Name, time.Since(began).Seconds())
			}
		}
		if len(reported) == len(units) {
			return errAllReady
		}
		return nil
	})
	if err != errAllReady {
		t.Fatalf("not all units are ready: %v\n%s", err, statusPage(n.supervisor.Status()))
	}
	logUse(t, n.supervisor.Status())
}

var errAllReady = fmt.Errorf("all units are ready")

func statusPage(all []supervise.Status) string {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "%s: %s, waiting for %q, restarts %d, last error %q\n", s.Name, s.State, s.WaitingFor, s.Restarts, s.LastError)
	}
	return b.String()
}

// logUse prints what each process holds and what starting it took.
func logUse(t *testing.T, all []supervise.Status) {
	for _, s := range all {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
		if s.PID == 0 || err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID))
		must(t, err)
		var user, system float64 // 1/100 s, fields 14 and 15 (proc_pid_stat(5))
		_, err = fmt.Sscan(strings.Join(strings.Fields(string(stat))[13:15], " "), &user, &system)
		must(t, err)
		for line := range strings.Lines(string(status)) {
			if anon, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				t.Logf("%s: %.2f s of processor, memory %s", s.Name, (user+system)/100, strings.TrimSpace(anon))
			}
		}
	}
}

func tail(log []byte) string {
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// writeAdmin makes the kubeconfig that the boot service gives to people.
func writeAdmin(t *testing.T, cfg *machine.Config) {
	t.Helper()
	ca := pki.CA{CertPEM: []byte(cfg.Cluster.CA), KeyPEM: []byte(cfg.ControlPlaneKeys.CAKey.Reveal())}
	leaf, err := ca.Issue(pki.Request{
		CommonName: "ada", Organizations: []string{"slipway:cluster-admins"}, Client: true, Validity: time.Hour,
	}, time.Now())
	must(t, err)
	pathOf(t, "admin", kubeconfig.Config{User: "ada", Cert: string(leaf.CertPEM), Key: secret.New(string(leaf.KeyPEM))}, cfg)
}

// pathOf writes a kubeconfig for this control plane.
func pathOf(t *testing.T, name string, c kubeconfig.Config, cfg *machine.Config) string {
	t.Helper()
	c.Cluster, c.Server, c.CA = cfg.Cluster.Name, "https://192.0.2.10:6443", cfg.Cluster.CA
	text, err := c.Encode()
	must(t, err)
	path := "/tmp/" + name + ".kubeconfig"
	must(t, os.WriteFile(path, text, 0o600))
	return path
}

// kubectl runs the real one as the admin, and returns what it printed.
func kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := try("/tmp/admin.kubeconfig", stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func try(config, stdin string, args ...string) (string, error) {
	cmd := exec.Command("/usr/bin/kubectl", append([]string{"--kubeconfig=" + config}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = []string{"HOME=/tmp"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func want(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

func testPodSecurity(t *testing.T) {
	for _, namespace := range []string{"demo", "kube-system"} { // no pod without its account
		kubectl(t, "", "wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=60s")
	}
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"%s"},
		"spec":{"containers":[{"name":"c","image":"slipway.local/pause:1","securityContext":{"privileged":true}}]}}`
	out, err := try("/tmp/admin.kubeconfig", fmt.Sprintf(pod, "demo"), "create", "-f", "-")
	if err == nil {
		t.Errorf("a privileged pod was let in: %s", out)
	}
	want(t, out, "violates PodSecurity", "baseline")
	kubectl(t, fmt.Sprintf(pod, "kube-system"), "create", "--dry-run=server", "-f", "-")
}

// testJoin gets a node's certificate as a worker does, with the bootstrap token;
// the controller manager approves and signs by itself.
func testJoin(t *testing.T, bootstrap string, cfg *machine.Config) {
	join(t, cfg)
	node := pathOf(t, "node", kubeconfig.Config{User: "node", CertFile: nodeCert, KeyFile: nodeCert}, cfg)
	out, err := try(node, "", "auth", "whoami")
	must(t, err)
	want(t, out, "system:node:worker-7")
	want(t, out, "system:nodes")
	if out, err := try(bootstrap, "", "get", "secrets", "-A"); err == nil {
		t.Errorf("the bootstrap token reads secrets: %s", out)
	}
}

// nodeCert is where a worker has its certificate and key.
const nodeCert = "/var/lib/kubelet/pki/client.pem"

// join runs a worker's unit certificates until it is ready, and returns the
// certificate.
func join(t *testing.T, cfg *machine.Config) *x509.Certificate {
	t.Helper()
	w := *cfg
	w.Role = machine.Worker
	units := worker.Units(&w, machine.Identity{Hostname: "worker-7"})
	at := slices.IndexFunc(units, func(u supervise.Unit) bool { return u.Name == "certificates" })
	ctx, cancel := context.WithTimeout(t.Context(), startup)
	defer cancel()
	ready := false
	err := units[at].Service.Run(ctx, func() { ready = true; cancel() })
	if !ready {
		t.Fatalf("a worker has no certificate: %v", err)
	}
	text, err := os.ReadFile(nodeCert)
	must(t, err)
	cert, err := pki.ParseCert(text)
	must(t, err)
	return cert
}

// testReturn deletes one of ours; a fresh reconciler, as after a restart of
// the unit, puts it back.
func testReturn(t *testing.T, cfg *machine.Config) {
	kubectl(t, "", "delete", "service", "-n", "kube-system", "kube-dns")
	unit := addonsUnit(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	if err := unit.Service.Run(ctx, cancel); err != nil {
		t.Fatal(err)
	}
	want(t, kubectl(t, "", "get", "service", "-n", "kube-system", "kube-dns", "-o", "jsonpath={.spec.clusterIP}"), "10.96.0.10")
}
