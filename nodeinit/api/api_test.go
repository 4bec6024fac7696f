package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/logring"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// node is a PID 1 without a machine: real units, rings and socket.
type node struct {
	*Server
	dir     string
	nodes   nodev1connect.NodeServiceClient
	init    nodev1connect.InitServiceClient
	off     chan bool // what Shutdown was called with
	refusal error     // of Shutdown
}

func start(t *testing.T) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	n := &node{dir: t.TempDir(), off: make(chan bool, 1)}
	rings := logring.Open("")
	idle := func(ctx context.Context, ready func()) error { ready(); <-ctx.Done(); return nil }
	n.Server = &Server{
		Units: supervise.New(log), Rings: rings, Version: "v1.2.3",
		Plan:     n.plan,
		Common:   n.common,
		Base:     []supervise.Unit{{Name: Prerequisite, Service: &service{idle}}},
		Runner:   proc.Runner{Log: rings.Writer},
		Shutdown: func(r *nodev1.RebootRequest) error { n.off <- r.PowerOff; return n.refusal },
		System:   System{Proc: n.dir, Cgroups: n.dir + "/cgroup", Kmsg: n.dir + "/kmsg"},
	}
	if err := n.Units.Apply(t.Context(), n.Base); err != nil {
		t.Fatal(err)
	}
	n.serve(t)
	return n
}

type service struct{ supervise.Func }

func (n *node) serve(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	up, ended := make(chan bool), make(chan error, 1)
	socket := filepath.Join(n.dir, "run/init.sock")
	go func() { ended <- n.Serve(ctx, socket, func() { close(up) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		n.Units.Stop(context.Background())
	})
	select {
	case <-up:
	case err := <-ended:
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	n.nodes = nodev1connect.NewNodeServiceClient(client, "http://init")
	n.init = nodev1connect.NewInitServiceClient(client, "http://init")
}

// plan makes of a config one program that shows a file, and runs on.
func (n *node) plan(config *machine.Config, id machine.Identity) ([]proc.File, []supervise.Unit, error) {
	file := proc.File{Path: n.dir + "/etc/motd", Mode: 0o600, Data: fmt.Appendf(nil, "%s at %s on %s\n", id.Hostname, id.Address, id.Link)}
	if config.Hostname == "wrong" {
		return nil, []supervise.Unit{{Name: "lost", After: []string{"nobody"}, Service: &service{}}}, nil
	}
	show := "cat " + file.Path + "; exec sleep 1000"
	labels := proc.File{Path: n.dir + "/etc/labels", Mode: 0o600, Data: fmt.Append(nil, config.Kubelet.Labels)}
	reader := sleeper("reader", show, labels.Path)
	after := sleeper("after", show)
	after.After = []string{"reader"}
	return []proc.File{file, labels}, []supervise.Unit{sleeper("shower", show), reader, after}, nil
}

func sleeper(name, script string, reads ...string) supervise.Unit {
	return supervise.Unit{Name: name, Service: &proc.Process{Name: name, Path: "/bin/sh", Args: []string{"-c", script}, Reads: reads}}
}

// common is a part of what any config comes to, and a unit that only helps.
func (n *node) common() ([]proc.File, []supervise.Unit, error) {
	help := &service{func(context.Context, func()) error { return nil }}
	return nil, []supervise.Unit{sleeper("shower", "cat "+n.dir+"/etc/motd; exec sleep 1000"), {Name: "help", Service: help, Restart: supervise.OnFailure}}, nil
}

func workerConfig(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("../../configs/examples/machine-worker.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (n *node) apply(t *testing.T, config []byte) error {
	t.Helper()
	_, err := n.init.Apply(t.Context(), connect.NewRequest(&nodev1.ApplyRequest{Config: config, Address: "192.0.2.7", Link: "eth0"}))
	return err
}

// await watches units until one is in a state.
func (n *node) await(t *testing.T, unit, state string) *nodev1.Unit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := n.init.WatchUnits(ctx, connect.NewRequest(&nodev1.WatchUnitsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() {
		if u := stream.Msg(); u.Name == unit && u.State == state {
			return u
		}
	}
	t.Fatalf("unit %s was never %s: %v", unit, state, stream.Err())
	return nil
}

func TestApplyRunsWhatTheConfigSays(t *testing.T) {
	n := start(t)
	if err := n.apply(t, workerConfig(t)); err != nil {
		t.Fatal(err)
	}
	unit := n.await(t, "shower", "ready")
	if unit.Pid == 0 {
		t.Error("no PID")
	}
	if age := time.Since(unit.Since.AsTime()); age < 0 || age > time.Minute {
		t.Errorf("ready since %s", age)
	}
	lines, err := n.nodes.Logs(t.Context(), connect.NewRequest(&nodev1.LogsRequest{Unit: "shower", Follow: true}))
	if err != nil || !lines.Receive() {
		t.Fatal(err, lines.Err())
	}
	if want := " at 192.0.2.7 on eth0"; !strings.HasSuffix(lines.Msg().Text, want) {
		t.Errorf("logged %q, want …%q", lines.Msg().Text, want)
	}
	lines.Close()

	if err := n.apply(t, workerConfig(t)); err != nil {
		t.Fatal(err)
	}
	if again := n.await(t, "shower", "ready"); again.Pid != unit.Pid {
		t.Error("the same config again restarted the unit")
	}
}

// TestPrepare: what runs before the config runs on with it, and what only
// helped is gone.
func TestPrepare(t *testing.T) {
	n := start(t)
	prepare := func() []string {
		t.Helper()
		done, err := n.init.Prepare(t.Context(), connect.NewRequest(&nodev1.PrepareRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return done.Msg.Units
	}
	if got := prepare(); !slices.Equal(got, []string{"shower", "help"}) {
		t.Errorf("units %q", got)
	}
	n.await(t, "help", "done")
	before := n.await(t, "shower", "ready").Pid
	if err := n.apply(t, workerConfig(t)); err != nil {
		t.Fatal(err)
	}
	if after := n.await(t, "shower", "ready").Pid; after != before {
		t.Error("the config restarted what ran")
	}
	if slices.ContainsFunc(n.Units.Status(), func(s supervise.Status) bool { return s.Name == "help" }) {
		t.Error("what helped is still there")
	}
	if got := prepare(); got != nil {
		t.Errorf("after a config, it prepares %q", got)
	}
}

// TestApplyChange: of a changed config, what it changes is restarted: not what
// comes after that, and nothing else.
func TestApplyChange(t *testing.T) {
	n := start(t)
	pids := func() (p struct{ shower, reader, after int32 }) {
		p.shower, p.reader, p.after = n.await(t, "shower", "ready").Pid, n.await(t, "reader", "ready").Pid, n.await(t, "after", "ready").Pid
		return p
	}
	if err := n.apply(t, workerConfig(t)); err != nil {
		t.Fatal(err)
	}
	before := pids()
	changed := strings.Replace(string(workerConfig(t)), "labels:\n", "labels:\n    rack: b\n", 1)
	if err := n.apply(t, []byte(changed)); err != nil {
		t.Fatal(err)
	}
	if after := pids(); after.shower != before.shower || after.after != before.after || after.reader == before.reader {
		t.Errorf("processes %+v, then %+v: want only reader's restarted", before, after)
	}
	renamed := strings.Replace(changed, "hostname: ", "hostname: another-", 1)
	if err := n.apply(t, []byte(renamed)); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "does not become") {
		t.Errorf("another hostname: %v", err)
	}
}

func TestApplyRefuses(t *testing.T) {
	n := start(t)
	wrong := strings.NewReplacer("hostname: ", "hostname: wrong #").Replace(string(workerConfig(t)))
	for _, test := range []struct {
		name   string
		config string
		code   connect.Code
		want   string
	}{
		{"junk", "kind: MachineConfig\nbogus: 1\n", connect.CodeInvalidArgument, "bogus"},
		{"a plan that cannot run", wrong, connect.CodeInternal, `unit "lost": after "nobody"`},
	} {
		err := n.apply(t, []byte(test.config))
		if connect.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	_, err := n.init.Apply(t.Context(), connect.NewRequest(&nodev1.ApplyRequest{Config: workerConfig(t), Address: "here"}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a bad address: %v", err)
	}
	n.await(t, Prerequisite, "ready") // what ran before runs on
	if err := n.apply(t, workerConfig(t)); err != nil {
		t.Errorf("a good config after bad ones: %v", err)
	}
}

func TestStatus(t *testing.T) {
	n := start(t)
	os.WriteFile(n.dir+"/meminfo", []byte("MemTotal:        2048 kB\nMemAvailable:    1024 kB\nHugePages_Total:       0\n"), 0o644)
	os.MkdirAll(n.dir+"/cgroup/shower", 0o755)
	os.WriteFile(n.dir+"/cgroup/shower/memory.current", []byte("4096\n"), 0o644)
	status := func() *nodev1.StatusResponse {
		t.Helper()
		answer, err := n.nodes.Status(t.Context(), connect.NewRequest(&nodev1.StatusRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return answer.Msg
	}
	before := status()
	if before.Hostname != "" || before.Version != "v1.2.3" || before.Kernel == "" || before.UptimeMs == 0 || len(before.Units) != 1 {
		t.Errorf("without a config: %v", before)
	}
	if err := n.apply(t, workerConfig(t)); err != nil {
		t.Fatal(err)
	}
	n.await(t, "shower", "ready")
	after := status()
	config, err := machine.Parse(workerConfig(t), "example")
	if err != nil {
		t.Fatal(err)
	}
	if after.Hostname != config.Hostname || after.Role != "worker" || after.Cluster != config.Cluster.Name {
		t.Errorf("with a config: %v", after)
	}
	if after.MemoryTotal != 2<<20 || after.MemoryAvailable != 1<<20 || len(after.Units) != 4 || after.Units[1].Memory != 4096 {
		t.Errorf("memory: %v", after)
	}
}

func TestReboot(t *testing.T) {
	n := start(t)
	for _, off := range []bool{false, true} {
		if _, err := n.nodes.Reboot(t.Context(), connect.NewRequest(&nodev1.RebootRequest{PowerOff: off})); err != nil {
			t.Fatal(err)
		}
		if got := <-n.off; got != off {
			t.Errorf("power off: %t, want %t", got, off)
		}
	}
}

func TestLogsOfNobody(t *testing.T) {
	n := start(t)
	stream, err := n.nodes.Logs(t.Context(), connect.NewRequest(&nodev1.LogsRequest{Unit: "nobody"}))
	if err == nil {
		stream.Receive()
		err = stream.Err()
	}
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Error(err)
	}
}

func TestWatchEndsWithItsReader(t *testing.T) {
	n := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := n.init.WatchUnits(ctx, connect.NewRequest(&nodev1.WatchUnitsRequest{}))
	if err != nil || !stream.Receive() {
		t.Fatal(err)
	}
	cancel()
	for stream.Receive() {
	}
	if !errors.Is(stream.Err(), context.Canceled) && connect.CodeOf(stream.Err()) != connect.CodeCanceled {
		t.Error(stream.Err())
	}
}

func TestParseKmsg(t *testing.T) {
	type result struct {
		Since time.Duration
		Text  string
		OK    bool
	}
	for record, want := range map[string]result{
		"6,339,5140900,-;NET: Registered protocol family 10\n":         {5140900 * time.Microsecond, "NET: Registered protocol family 10", true},
		"4,1,0,-,caller=T1;Linux version 6.12\n SUBSYSTEM=x\n KEY=v\n": {0, "Linux version 6.12", true},
		"30,2,7,c;a;b\n":   {7 * time.Microsecond, "a;b", true},
		"6,339;text\n":     {},
		"6,339,soon,-;x\n": {},
		"":                 {},
	} {
		var got result
		got.Since, got.Text, got.OK = parseKmsg(record)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", record, diff)
		}
	}
}

func TestDmesg(t *testing.T) {
	n := start(t)
	n.System.Kmsg = "/dev/kmsg"
	if _, err := os.ReadFile("/proc/sys/kernel/dmesg_restrict"); err != nil {
		t.Skip("no kernel log here")
	}
	file, err := os.Open(n.System.Kmsg)
	if err != nil {
		t.Skipf("may not read the kernel's log here: %v", err)
	}
	file.Close()
	stream, err := n.nodes.Dmesg(t.Context(), connect.NewRequest(&nodev1.DmesgRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for stream.Receive() {
		lines++
	}
	if stream.Err() != nil {
		t.Error(stream.Err())
	}
	t.Logf("%d lines", lines)
}
