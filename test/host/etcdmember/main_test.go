// Package etcdmember runs the members of a cluster as machines do: for each the
// units etcd-member and etcd, under a supervisor, with the real program. The
// machines are addresses of loopback in a network namespace, and the boot service
// is a small one of the test's, behind the socket that the agent makes on a node.
package etcdmember

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/etcd"
	"slipway/controlplane/etcd/member"
	"slipway/controlplane/pki"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
	"slipway/test/netns"
	"slipway/test/payload"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// patience is how long anything may take, on the slowest computer.
const patience = 90 * time.Second

// site is a cluster and what all its machines share.
type site struct {
	t    *testing.T
	ca   pki.CA
	bin  string // folder with etcd and etcdutl
	boot *bootService
}

func newSite(t *testing.T) *site {
	t.Helper()
	netns.Require(t, "ip")
	ca, err := pki.NewCA("etcd", time.Now(), 24*time.Hour)
	must(t, err)
	return &site{t: t, ca: ca, bin: payload.Link(t, "etcd", "etcdutl"), boot: &bootService{snapshots: map[string][]byte{}}}
}

// node is a machine of the site.
type node struct {
	*site
	name  string
	addr  netip.Addr
	paths etcd.Paths
	cfg   *machine.Config
	units *supervise.Supervisor
	unit  *member.Service // of the units that run
	as    *proc.Process   // what unit is on a node
	log   *syncBuffer
	now   func() time.Time // nil: time.Now
	quota int64            // bytes; 0: as on a node
	disk  *pretendedDisk   // a good one: what other tests write to this computer's is no matter here
}

// add makes a machine with an empty disk. It runs nothing yet.
func (s *site) add(name, addr string) *node {
	s.t.Helper()
	exec.Command("ip", "addr", "add", addr+"/32", "dev", "lo").Run() // it may be there: a machine had it before
	root := s.t.TempDir()
	return &node{site: s, name: name, addr: netip.MustParseAddr(addr), log: &syncBuffer{}, disk: newDisk(2 * time.Millisecond), paths: etcd.Paths{
		Data: root + "/data", Config: root + "/etcd.yaml", Settings: root + "/etcd-member.json", PKI: root + "/pki",
		Socket: root + "/etcd.sock", Boot: root + "/boot.sock", Etcdutl: s.bin + "/etcdutl", Local: addr + ":2379", Clients: root + "/clients.sock",
	}}
}

// grant is a leave to begin, as a machine config carries it.
type grant = machine.EtcdBootstrap

// start gives a machine a config and runs its units.
func (n *node) start(generation int, leave *grant, members ...*node) {
	n.t.Helper()
	n.configure(generation, leave, members...)
	n.run()
}

// configure gives a machine a config.
func (n *node) configure(generation int, leave *grant, members ...*node) {
	n.t.Helper()
	n.cfg = &machine.Config{
		Hostname: n.name, Role: machine.EtcdOnly, Cluster: machine.Cluster{Name: "prod"},
		Etcd: &machine.Etcd{CA: string(n.ca.CertPEM), CAKey: secret.New(string(n.ca.KeyPEM)), Generation: generation, Bootstrap: leave, AllowSlowDisk: true},
	}
	n.lists(members...)
	n.boot.serve(n)
}

// writeFiles writes what the node's plan says, below the machine's own folder.
func (n *node) writeFiles() {
	n.t.Helper()
	id := machine.Identity{Hostname: n.name, Address: n.addr}
	files, err := etcd.Files(n.cfg, id)
	must(n.t, err)
	for _, l := range etcd.Leaves(n.cfg, id) {
		cert, key, err := l.Mint(time.Now(), time.Hour)
		must(n.t, err)
		files = append(files, cert, key)
	}
	node := etcd.NodePaths()
	for i := range files {
		files[i].Path = strings.NewReplacer(node.PKI, n.paths.PKI, node.Settings, n.paths.Settings).Replace(files[i].Path)
	}
	must(n.t, proc.WriteFiles(files))
}

// run starts the units of the plan.
func (n *node) run() {
	n.t.Helper()
	n.runUnits(n.plan())
}

// plan are the machine's units, with the machine's paths. Like PID 1 it looks at
// what etcd reads only when it starts: another CA makes another process of it. And
// where it would start etcd-member anew, so is the unit another one here.
func (n *node) plan() []supervise.Unit {
	units := etcd.Units(n.cfg)[:2] // there is no API server that waits for the third
	if as := units[0].Service.(*proc.Process); n.unit == nil || !as.Equal(n.as) {
		log := slog.New(slog.NewTextHandler(n.log, nil))
		n.as, n.unit = as, &member.Service{Paths: n.paths, Log: log.With("unit", etcd.MemberUnit), Now: n.now, Quota: n.quota}
	}
	n.unit.Measure = n.disk.measure
	units[0].After, units[0].Service = nil, n.unit
	program := units[1].Service.(*proc.Process)
	program.Path, program.Args, program.Reads = n.bin+"/etcd", []string{"--config-file=" + n.paths.Config}, []string{n.paths.PKI + "/ca.crt"}
	program.Ready = proc.HTTPSProbe{
		URL: "https://" + n.paths.Local + "/readyz", CAFile: n.paths.PKI + "/ca.crt", CertFile: n.paths.PKI + "/server.crt", KeyFile: n.paths.PKI + "/server.key",
	}
	proc.Runner{Log: func(string) io.Writer { return n.log }}.Adopt(units)
	return units
}

func (n *node) runUnits(units []supervise.Unit) {
	n.t.Helper()
	n.units = supervise.New(slog.New(slog.NewTextHandler(n.log, nil)))
	must(n.t, n.units.Apply(context.Background(), units))
	n.t.Cleanup(func() {
		n.stop()
		if n.t.Failed() {
			n.t.Logf("the end of %s's log:\n%s", n.name, n.log.tail(25))
		}
	})
}

// stop ends the machine's units as a shutdown does.
func (n *node) stop() {
	if n.units == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.units.Stop(ctx); err != nil {
		n.t.Errorf("stop %s: %v", n.name, err)
	}
	n.units, n.unit = nil, nil
}

// api is the machine's EtcdService, as the agent reaches it.
func (n *node) api() nodev1connect.EtcdServiceClient {
	return nodev1connect.NewEtcdServiceClient(&http.Client{Transport: unixTransport(n.paths.Socket)}, "http://etcd")
}

func (n *node) status() *nodev1.EtcdStatusResponse {
	answer, err := n.api().Status(n.t.Context(), connect.NewRequest(&nodev1.EtcdStatusRequest{}))
	if err != nil {
		return &nodev1.EtcdStatusResponse{WaitingFor: err.Error()}
	}
	return answer.Msg
}

// voter waits until the machine's member is a healthy voter and its units are
// ready.
func (n *node) voter() {
	n.t.Helper()
	n.eventually("a healthy voter", func() bool {
		s := n.status()
		if !s.Running || s.Learner || s.WaitingFor != "" {
			return false
		}
		for _, u := range n.units.Status() {
			if u.State != supervise.Ready {
				return false
			}
		}
		return true
	})
}

// says waits until the machine's status text holds all of some words.
func (n *node) says(words ...string) {
	n.t.Helper()
	n.eventually(strings.Join(words, "..."), func() bool {
		text := n.status().WaitingFor
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
	n.t.Logf("%s: %s", n.name, n.status().WaitingFor)
}

func (n *node) eventually(what string, is func() bool) {
	n.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			n.t.Fatalf("%s: no %s after %s; status: %v", n.name, what, patience, n.status())
		case <-tick.C:
		}
	}
}

// members are the members' names and IDs as a machine tells them.
func (n *node) members() map[string]string {
	n.t.Helper()
	answer, err := n.api().Members(n.t.Context(), connect.NewRequest(&nodev1.EtcdMembersRequest{}))
	must(n.t, err)
	list := map[string]string{}
	for _, m := range answer.Msg.Members {
		list[m.Name] = m.Id
	}
	return list
}

// movedClock is the computer's, moved.
type movedClock struct{ by atomic.Int64 }

func (c *movedClock) now() time.Time        { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *movedClock) move(by time.Duration) { c.by.Store(int64(by)) }

// pretendedDisk takes as long for a sync as it is told.
type pretendedDisk struct{ fsync atomic.Int64 }

func newDisk(fsync time.Duration) *pretendedDisk {
	d := &pretendedDisk{}
	d.fsync.Store(int64(fsync))
	return d
}

func (d *pretendedDisk) measure(string) (etcd.Measured, error) {
	return etcd.Measured{Fsync: time.Duration(d.fsync.Load()), Sign: 50 * time.Microsecond}, nil
}

// syncBuffer is a log that several write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) tail(lines int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Split(strings.TrimSpace(s.b.String()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

var _ io.Writer = (*syncBuffer)(nil)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
