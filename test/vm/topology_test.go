package vm

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/configs/cluster"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
	"slipway/qemu"
	"slipway/test/vmtest"
)

// TestEtcdElsewhere makes two clusters side by side whose control planes run no etcd: one has a
// machine for it, the other uses an etcd that someone else runs.
func TestEtcdElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	machines := []qemu.Machine{vmtest.BIOS("plane"), vmtest.BIOS("state"), vmtest.BIOS("guest")}
	for i := range machines {
		machines[i].MemoryMiB = 2048
	}
	lab := vmtest.New(t, vmtest.Machines(machines...))
	outside := startEtcd(t, lab)
	limit := lab.Timeout(bootPatience)
	for name, document := range map[string]string{
		"dedicated": fmt.Sprintf("name: dedicated\nmachines:\n- {id: %s, role: control-plane}\n- {id: %s, role: etcd}\n", lab.MachineID(t, "plane"), lab.MachineID(t, "state")),
		"external":  outside.document(t, lab.MachineID(t, "guest")),
	} {
		file := filepath.Join(t.TempDir(), name+".yaml")
		if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		lab.CLI(t, "cluster", "create", "-f", file, "--yes", "--wait=false")
	}
	for _, name := range []string{"dedicated", "external"} {
		out, err := lab.TryWithin(limit+time.Minute, lab.Slipway("cluster", "create", name, "--yes", "--wait", "--timeout", limit.String())...)
		t.Logf("slipway cluster create %s:\n%s", name, out)
		if err != nil {
			t.Fatal(err)
		}
	}
	for machine, want := range map[string]bool{"plane": false, "state": true, "guest": false} {
		running, err := units(lab, lab.MachineID(t, machine))
		if err != nil {
			t.Fatal(err)
		}
		if _, has := running["etcd"]; has != want {
			t.Errorf("machine %s runs etcd: %v, want %v", machine, has, want)
		}
		if _, has := running["kubelet"]; has == want {
			t.Errorf("machine %s runs a kubelet: %v, want %v", machine, has, !want)
		}
	}
	outside.mustHold(t, lab, "/registry/minions/")
}

// TestSlowDisk has etcd on a disk that takes a few writes a second only: it is refused with the
// figures, and runs once a person says so.
func TestSlowDisk(t *testing.T) {
	needLong(t)
	plane, state := vmtest.BIOS("plane"), vmtest.BIOS("state")
	plane.MemoryMiB, state.MemoryMiB = 2048, 2048
	state.DisksGiB, state.DiskWrites = []int{8}, 10
	lab := vmtest.New(t, vmtest.Machines(plane, state))
	document := fmt.Sprintf("name: prod\netcd: {allowSlowDisk: %%v}\nmachines:\n- {id: %s, role: control-plane}\n- {id: %s, role: etcd, install: {disk: any}}\n",
		lab.MachineID(t, "plane"), lab.MachineID(t, "state"))
	file := func(allow bool) string {
		path := filepath.Join(t.TempDir(), "prod.yaml")
		if err := os.WriteFile(path, fmt.Appendf(nil, document, allow), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lab.CLI(t, "cluster", "create", "-f", file(false), "--yes", "--wait=false")
	const refusal = "the disk is too slow for etcd: one sync in a hundred takes"
	lab.Await(t, "the machine for etcd refuses", 2*bootPatience, func() error {
		out, err := lab.TryCLI("cluster", "status", "prod")
		if err == nil && !strings.Contains(out, refusal) {
			err = fmt.Errorf("it says:\n%s", out)
		}
		return err
	})
	t.Logf("slipway cluster status prod:\n%s", lab.CLI(t, "cluster", "status", "prod"))
	limit := lab.Timeout(2 * bootPatience)
	out, err := lab.TryWithin(limit+time.Minute, lab.Slipway("cluster", "update", "-f", file(true), "--yes", "--wait", "--timeout", limit.String())...)
	t.Logf("slipway cluster update:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("slipway etcd status:\n%s", lab.CLI(t, "etcd", "status"))
}

// outsideEtcd is an etcd on the lab's own computer, with a CA of its own.
type outsideEtcd struct {
	url  string
	ca   pki.CA
	user pki.Leaf
	dir  string
}

func startEtcd(t *testing.T, lab *vmtest.Lab) *outsideEtcd {
	t.Helper()
	const address, port = "10.77.0.1", "12379"
	now := time.Now()
	ca, err := pki.NewCA("somebody's etcd", now, time.Hour*24)
	if err != nil {
		t.Fatal(err)
	}
	e := &outsideEtcd{url: "https://" + net.JoinHostPort(address, port), ca: ca, dir: t.TempDir()}
	server, err := ca.Issue(pki.Request{CommonName: "etcd", Server: true, Client: true, IPs: []net.IP{net.ParseIP(address)}, Validity: time.Hour}, now)
	if err != nil {
		t.Fatal(err)
	}
	if e.user, err = ca.Issue(pki.Request{CommonName: "kube-apiserver", Client: true, Validity: time.Hour}, now); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"ca.crt": ca.CertPEM, "server.crt": server.CertPEM, "server.key": server.KeyPEM, "user.crt": e.user.CertPEM, "user.key": e.user.KeyPEM,
	} {
		if err := os.WriteFile(filepath.Join(e.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(e.dir, "etcd")
	multicall, err := os.Readlink(filepath.Join(lab.Dir(), "kubectl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(multicall, program); err != nil {
		t.Fatal(err)
	}
	process := lab.Start(t, program, "--data-dir="+filepath.Join(e.dir, "data"), "--listen-client-urls="+e.url, "--advertise-client-urls="+e.url,
		"--listen-peer-urls=http://127.0.0.1:12380", "--initial-advertise-peer-urls=http://127.0.0.1:12380", "--initial-cluster=default=http://127.0.0.1:12380",
		"--client-cert-auth", "--trusted-ca-file="+e.dir+"/ca.crt", "--cert-file="+e.dir+"/server.crt", "--key-file="+e.dir+"/server.key")
	t.Cleanup(func() { process.Stop(t) })
	return e
}

func (e *outsideEtcd) document(t *testing.T, machine string) string {
	t.Helper()
	text, err := cluster.Marshal(&cluster.Cluster{
		Name:     "external",
		Machines: []cluster.Machine{{ID: machine}},
		Etcd: cluster.Etcd{External: &cluster.External{
			Endpoints: []string{e.url}, CA: string(e.ca.CertPEM), Cert: string(e.user.CertPEM), Key: secret.New(string(e.user.KeyPEM)),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// mustHold asks for a key below prefix, through etcd's own JSON gateway.
func (e *outsideEtcd) mustHold(t *testing.T, lab *vmtest.Lab, prefix string) {
	t.Helper()
	end := prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1)
	query, err := json.Marshal(map[string]any{"key": []byte(prefix), "range_end": []byte(end), "count_only": true})
	if err != nil {
		t.Fatal(err)
	}
	out, err := lab.Try("curl", "-sS", "-m", "10", "--cacert", e.dir+"/ca.crt", "--cert", e.dir+"/user.crt", "--key", e.dir+"/user.key", "-d", string(query), e.url+"/v3/kv/range")
	if err != nil || !strings.Contains(out, `"count"`) {
		t.Errorf("the external etcd has nothing below %s: %s, %v", prefix, out, err)
	}
}
