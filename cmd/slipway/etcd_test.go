package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"slipway/bootsvc/api/bootv1"
	"slipway/controlplane/etcd"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// fakeEtcd is a node's member of etcd by hand.
type fakeEtcd struct {
	nodev1connect.UnimplementedEtcdServiceHandler
	status   *nodev1.EtcdStatusResponse
	database []byte
	calls    *[]string // of all members, in order
	removal  error
}

func (f *fakeEtcd) call(what string) { *f.calls = append(*f.calls, f.status.Name+" "+what) }

func (f *fakeEtcd) Status(context.Context, *connect.Request[nodev1.EtcdStatusRequest]) (*connect.Response[nodev1.EtcdStatusResponse], error) {
	return connect.NewResponse(f.status), nil
}

func (f *fakeEtcd) Members(context.Context, *connect.Request[nodev1.EtcdMembersRequest]) (*connect.Response[nodev1.EtcdMembersResponse], error) {
	return connect.NewResponse(&nodev1.EtcdMembersResponse{Members: []*nodev1.EtcdMember{
		{Id: "a1", Name: "cp-1", PeerUrls: []string{"https://192.0.2.1:2380"}, Leader: true, Healthy: true},
		{Id: "b2", PeerUrls: []string{"https://192.0.2.2:2380"}, Learner: true},
	}}), nil
}

func (f *fakeEtcd) Remove(ctx context.Context, r *connect.Request[nodev1.EtcdRemoveRequest]) (*connect.Response[nodev1.EtcdRemoveResponse], error) {
	if until, ok := ctx.Deadline(); !ok || time.Until(until) <= etcd.SettleTime {
		return nil, connect.NewError(connect.CodeInternal, errors.New("a real one may take longer than the caller waits"))
	}
	if f.removal != nil {
		return nil, f.removal
	}
	f.call("removes " + r.Msg.Member)
	return connect.NewResponse(&nodev1.EtcdRemoveResponse{}), nil
}

func (f *fakeEtcd) Promote(_ context.Context, r *connect.Request[nodev1.EtcdPromoteRequest]) (*connect.Response[nodev1.EtcdPromoteResponse], error) {
	f.call("promotes " + r.Msg.Member)
	return connect.NewResponse(&nodev1.EtcdPromoteResponse{}), nil
}

func (f *fakeEtcd) Defrag(context.Context, *connect.Request[nodev1.EtcdDefragRequest]) (*connect.Response[nodev1.EtcdDefragResponse], error) {
	f.call("defrags")
	return connect.NewResponse(&nodev1.EtcdDefragResponse{Before: 20 << 20, After: 5 << 20}), nil
}

func (f *fakeEtcd) ForfeitLeadership(context.Context, *connect.Request[nodev1.EtcdForfeitLeadershipRequest]) (*connect.Response[nodev1.EtcdForfeitLeadershipResponse], error) {
	f.call("forfeits")
	return connect.NewResponse(&nodev1.EtcdForfeitLeadershipResponse{Leader: "cp-2"}), nil
}

func (f *fakeEtcd) Snapshot(_ context.Context, _ *connect.Request[nodev1.EtcdSnapshotRequest], out *connect.ServerStream[nodev1.EtcdSnapshotChunk]) error {
	half := len(f.database) / 2
	return errors.Join(out.Send(&nodev1.EtcdSnapshotChunk{Data: f.database[:half]}), out.Send(&nodev1.EtcdSnapshotChunk{Data: f.database[half:]}))
}

func (f *fakeEtcd) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewEtcdServiceHandler(f))
	return mux
}

// snapshotOf is a database with its hash behind it.
func snapshotOf(pages string) []byte {
	sum := sha256.Sum256([]byte(pages))
	return append([]byte(pages), sum[:]...)
}

func TestEtcdCommands(t *testing.T) {
	var calls []string
	leader := &fakeEtcd{calls: &calls, database: snapshotOf("pages"), status: &nodev1.EtcdStatusResponse{
		Name: "cp-1", MemberId: "a1", LeaderId: "a1", Running: true, RaftTerm: 3, RaftIndex: 1200, Revision: 1100,
		DbSize: 20 << 20, DbInUse: 300 << 10, FsyncP99Us: 2340, RoundTripUs: 610,
	}}
	leader.removal = connect.NewError(connect.CodeFailedPrecondition, errors.New("1 of 2 voters would answer: no quorum"))
	learner := &fakeEtcd{calls: &calls, database: []byte("a snapshot that is not whole, of more than 32 bytes"), status: &nodev1.EtcdStatusResponse{
		Name: "cp-2", MemberId: "b2", LeaderId: "a1", Running: true, Learner: true, Alarms: []string{"NOSPACE"}, WaitingFor: "etcd to catch up",
	}}
	addrs, contextFile := startRack(t, http.NotFoundHandler(), leader.handler(), learner.handler())
	file := filepath.Join(t.TempDir(), "etcd.db")
	const dead = "127.0.0.1:1"
	for _, tt := range []struct {
		args  string // A and B stand for the addresses, DEAD for one where nobody is
		code  int
		want  string
		calls []string
	}{
		{args: "members A", want: `NAME  ID  LEADER  LEARNER  HEALTHY  PEER URLS
cp-1  a1  yes     -        yes      https://192.0.2.1:2380
-     b2  -       yes      -        https://192.0.2.2:2380
`},
		{args: "status A B", want: `NAME  ID  LEADER  LEARNER  TERM  INDEX  REVISION  DB SIZE  IN USE   FSYNC P99  RTT    ALARMS   WAITING FOR
cp-1  a1  yes     -        3     1200   1100      20 MiB   300 KiB  2.34ms     610µs  -        -
cp-2  b2  -       yes      -     -      -         -        -        -          -      NOSPACE  etcd to catch up
`},
		{args: "remove b2 A --yes", code: 1, want: "slipway: 1 of 2 voters would answer: no quorum\n"},
		{args: "remove b2 B --yes", want: "b2 is no member any more.\n", calls: []string{"cp-2 removes b2"}},
		{args: "remove b2 A", code: 2, want: "Take b2 out of etcd? Its data is of no use afterwards. [yes/no] \nslipway: wrong usage: nobody answered; add --yes to go on without asking\n"},
		{args: "promote cp-2 B", want: "cp-2 is a voter.\n", calls: []string{"cp-2 promotes cp-2"}},
		{args: "defrag A B", want: "cp-2: from 20 MiB to 5 MiB\ncp-1: from 20 MiB to 5 MiB\n", calls: []string{"cp-2 defrags", "cp-1 defrags"}},
		{args: "forfeit-leadership A", want: "cp-2 leads.\n", calls: []string{"cp-1 forfeits"}},
		{args: "snapshot A --file FILE", want: "FILE, 37 bytes, checked\n"},
		{args: "snapshot B --file FILE.b", code: 1, want: "slipway: ask node B: the snapshot is broken: its last 32 bytes are not the SHA-256 of the others; nothing was kept, take it again\n"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			calls = nil
			names := strings.NewReplacer("DEAD", dead, "A", addrs[0], "B", addrs[1], "FILE", file)
			args := []string{"etcd", "--context", contextFile}
			for _, word := range strings.Fields(tt.args) {
				args = append(args, names.Replace(word))
			}
			var out bytes.Buffer
			if code := run(t.Context(), args, strings.NewReader(""), &out, &out); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			got := strings.NewReplacer(addrs[0], "A", addrs[1], "B", file, "FILE").Replace(out.String())
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.calls, calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
	if data, err := os.ReadFile(file); err != nil || !bytes.Equal(data, leader.database) {
		t.Errorf("the snapshot: %v", err)
	}
	if left, err := filepath.Glob(filepath.Dir(file) + "/*"); err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// TestFirst: whoever does not answer is passed over, and a refusal is an answer.
func TestFirst(t *testing.T) {
	node := func(name string, f *fakeEtcd) etcdNode {
		server := httptest.NewServer(f.handler())
		if f.status == nil {
			server.Close() // its machine is off
		}
		t.Cleanup(server.Close)
		return etcdNode{name, nodev1connect.NewEtcdServiceClient(server.Client(), server.URL)}
	}
	var calls []string
	status := func(name string) *nodev1.EtcdStatusResponse { return &nodev1.EtcdStatusResponse{Name: name} }
	off := node("cp-1", &fakeEtcd{})
	well := node("cp-2", &fakeEtcd{status: status("cp-2"), calls: &calls})
	refuses := node("cp-3", &fakeEtcd{status: status("cp-3"), removal: connect.NewError(connect.CodeFailedPrecondition, errors.New("no quorum would be left"))})
	remove := func(nodes ...etcdNode) error {
		_, err := removeMember(t.Context(), nodes, "b2")
		return err
	}
	if err := remove(off, well); err != nil || len(calls) != 1 {
		t.Errorf("one that is off before one that is well: %v, calls %v", err, calls)
	}
	if err := remove(off, refuses, well); connect.CodeOf(err) != connect.CodeFailedPrecondition || len(calls) != 1 {
		t.Errorf("a refusal before one that is well: %v, calls %v", err, calls)
	}
	if err := remove(off); !errors.Is(err, errUnreachable) {
		t.Errorf("nobody answers: %v", err)
	}
}

// TestEtcdWithoutOne: a member that is away stands in the table, and keeps
// defragmentation from beginning.
func TestEtcdWithoutOne(t *testing.T) {
	var calls []string
	member := &fakeEtcd{calls: &calls, status: &nodev1.EtcdStatusResponse{Name: "cp-1", MemberId: "a1", LeaderId: "a1", Running: true}}
	addrs, contextFile := startRack(t, http.NotFoundHandler(), member.handler())
	var out bytes.Buffer
	if code := run(t.Context(), []string{"etcd", "status", addrs[0], "127.0.0.1:1", "--context", contextFile}, nil, &out, &out); code != 0 {
		t.Errorf("status: exit code %d", code)
	}
	if !strings.Contains(out.String(), "127.0.0.1:1") || !strings.Contains(out.String(), "not reachable") {
		t.Errorf("status:\n%s", out.String())
	}
	if code := run(t.Context(), []string{"etcd", "defrag", addrs[0], "127.0.0.1:1", "--context", contextFile}, nil, &out, &out); code != exitUnreachable || calls != nil {
		t.Errorf("defrag: exit code %d, calls %v", code, calls)
	}
	if code := run(t.Context(), []string{"etcd", "status", "127.0.0.1:1", "--context", contextFile}, nil, &out, &out); code != exitUnreachable {
		t.Errorf("status of nobody: exit code %d", code)
	}
}

func TestEtcdMachines(t *testing.T) {
	machines := []*bootv1.Machine{
		{Hostname: "cp-1", Role: "control-plane", Address: "192.0.2.1"}, {Hostname: "cp-2", Role: "control-plane"},
		{Hostname: "worker-1", Role: "worker", Address: "192.0.2.3"},
	}
	names := func(list []*bootv1.Machine) (text string) {
		for _, m := range list {
			text += m.Hostname + " "
		}
		return text
	}
	if got := names(etcdMachines(machines)); got != "cp-1 " {
		t.Errorf("stacked: %s", got)
	}
	machines = append(machines, &bootv1.Machine{Hostname: "etcd-1", Role: "etcd", Address: "192.0.2.4"})
	if got := names(etcdMachines(machines)); got != "etcd-1 " {
		t.Errorf("dedicated: %s", got)
	}
}
