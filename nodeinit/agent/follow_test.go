package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"slipway/bootsvc/api/bootv1"
	initapi "slipway/nodeinit/api"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

func digestOf(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// labelled is a config with one label more.
func labelled(config []byte, label string) []byte {
	return bytes.Replace(config, []byte("labels:\n"), []byte("labels:\n    rack: "+label+"\n"), 1)
}

// TestFollow: the machine takes a config that changed, says what it has stored
// and what it runs, and leaves one alone that is not for it.
func TestFollow(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	stop := n.start(t)
	n.pid1.take(t)
	b.await("the first to be applied", func() bool { return bytes.Equal(b.applied, digestOf(exampleConfig(t))) })
	b.await("a poll", func() bool { return b.follows == 1 })

	second := labelled(exampleConfig(t), "b")
	b.update(func() { b.config = second })
	if got := n.pid1.take(t); !bytes.Equal(got.Config, second) {
		t.Errorf("PID 1 got\n%s", got.Config)
	}
	b.await("the second to be applied", func() bool {
		return bytes.Equal(b.applied, digestOf(second)) && bytes.Equal(b.acked, digestOf(second)) && b.acks == 2
	})

	renamed := bytes.Replace(second, []byte("hostname: "), []byte("hostname: another-"), 1)
	b.update(func() { b.config = renamed })
	b.await("a refusal", func() bool { return strings.Contains(b.waiting, "does not become") && b.phase == "failed" })
	if stored, err := n.store.load(configFile); err != nil || !bytes.Equal(stored, second) {
		t.Errorf("stored: %v\n%s", err, stored)
	}
	stop()

	// What it has outlives a restart, and the boot service.
	b.stop()
	n.start(t)
	if got := n.pid1.take(t); !bytes.Equal(got.Config, second) {
		t.Errorf("after a restart PID 1 got\n%s", got.Config)
	}
	third := labelled(exampleConfig(t), "c")
	b.config = third
	b.start()
	if got := n.pid1.take(t); !bytes.Equal(got.Config, third) {
		t.Errorf("PID 1 got\n%s", got.Config)
	}
	b.await("the third to be applied", func() bool { return bytes.Equal(b.applied, digestOf(third)) })
	if len(n.hosts) != 2 {
		t.Errorf("the host name was set %d times, want once for each start", len(n.hosts))
	}
}

// TestFollowBeyondWhatFails: a config that PID 1 cannot apply does not keep the
// next one away.
func TestFollowBeyondWhatFails(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	n.pid1.fail("no such module")
	n.start(t)
	n.pid1.take(t)
	b.await("the failure", func() bool {
		return b.phase == "failed" && strings.Contains(b.waiting, "no such module") && b.applied == nil && b.follows == 1
	})
	second := labelled(exampleConfig(t), "b")
	b.update(func() { b.config = second })
	for !bytes.Equal(n.pid1.take(t).Config, second) {
	}
	n.pid1.fail("")
	b.await("the second to be applied", func() bool { return bytes.Equal(b.applied, digestOf(second)) && b.phase == "joining" })
}

// TestAppliedMeansEncrypted: a config with another encryption key runs when the
// unit secrets is done, and not before: the old key is taken away then.
func TestAppliedMeansEncrypted(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	n.start(t)
	n.pid1.take(t)
	b.await("the first to be applied", func() bool { return bytes.Equal(b.applied, digestOf(exampleConfig(t))) })

	second := regexp.MustCompile(`(?m)^  encryptionKeys:\n`).ReplaceAll(exampleConfig(t), []byte("  rewriteSecrets: true\n$0"))
	b.update(func() { b.config = second })
	n.pid1.take(t)
	b.await("the second to be stored", func() bool { return bytes.Equal(b.acked, digestOf(second)) })
	n.tell(b, "secrets", "starting", "it to wait", func() bool { return b.waiting == "unit secrets to be ready" })
	n.tell(b, "node", "ready", "the machine to be ready", func() bool { return b.phase == "ready" })
	if !bytes.Equal(b.applied, digestOf(exampleConfig(t))) {
		t.Error("it said that the config runs before the Secrets were rewritten")
	}
	n.tell(b, "secrets", "done", "the second to be applied", func() bool { return bytes.Equal(b.applied, digestOf(second)) })
}

// TestAppliedMeansCertified: a worker's config runs when it has a certificate of the CA
// that signs now, and not before: the old CA is taken away then.
func TestAppliedMeansCertified(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleOf(t, "worker")
	n := newNode(t, b)
	n.start(t)
	n.pid1.take(t)
	n.tell(b, "certificates", "starting", "it to wait", func() bool { return b.waiting == "unit certificates to be ready" })
	if b.applied != nil {
		t.Error("it said that the config runs before it had a certificate")
	}
	n.tell(b, "certificates", "ready", "the config to be applied", func() bool { return bytes.Equal(b.applied, digestOf(exampleOf(t, "worker"))) })
}

// tell has PID 1 say it to whichever of the agent's streams asks, until done.
func (n *node) tell(b *bootService, unit, state, what string, done func() bool) {
	told := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		for {
			select {
			case n.pid1.units <- &nodev1.Unit{Name: unit, State: state}:
			case <-told:
				return
			}
		}
	})
	b.await(what, done)
	close(told)
	telling.Wait()
}

// TestAppliedMeansBack: the next control plane gets its config when etcd and
// Kubernetes' control plane on this one are there again.
func TestAppliedMeansBack(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	n.pid1.restarting.Store(true)
	n.start(t)
	n.pid1.take(t)
	b.await("the first to be applied", func() bool { return bytes.Equal(b.applied, digestOf(exampleConfig(t))) })
	second := labelled(exampleConfig(t), "b")
	b.update(func() { b.config = second })
	n.pid1.take(t)
	b.await("the second to be stored", func() bool { return bytes.Equal(b.acked, digestOf(second)) })
	n.tell(b, "kube-apiserver", "starting", "it to wait", func() bool { return b.waiting == "unit kube-apiserver to be ready" })
	n.tell(b, "node", "ready", "the machine to be ready", func() bool { return b.phase == "ready" })
	if !bytes.Equal(b.applied, digestOf(exampleConfig(t))) {
		t.Error("it said that the config runs before the API server was back")
	}
	applied := func() bool { return bytes.Equal(b.applied, digestOf(second)) }
	n.pid1.restarting.Store(false)
	n.pid1.hangUp <- struct{}{} // each stream begins anew, with what is ready
	n.pid1.hangUp <- struct{}{}
	b.await("the second to be applied", applied)
}

// etcdMember is the unit etcd-member by hand.
type etcdMember struct {
	nodev1connect.UnimplementedEtcdServiceHandler
	status  *nodev1.EtcdStatusResponse
	refusal string    // why it may not leave unless forced
	left    chan bool // force
}

func (m *etcdMember) Leave(_ context.Context, r *connect.Request[nodev1.EtcdLeaveRequest]) (*connect.Response[nodev1.EtcdLeaveResponse], error) {
	if m.refusal != "" && !r.Msg.Force {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New(m.refusal))
	}
	m.left <- r.Msg.Force
	return connect.NewResponse(&nodev1.EtcdLeaveResponse{}), nil
}

func (m *etcdMember) Status(context.Context, *connect.Request[nodev1.EtcdStatusRequest]) (*connect.Response[nodev1.EtcdStatusResponse], error) {
	return connect.NewResponse(m.status), nil
}

func (m *etcdMember) Snapshot(_ context.Context, _ *connect.Request[nodev1.EtcdSnapshotRequest], out *connect.ServerStream[nodev1.EtcdSnapshotChunk]) error {
	return out.Send(&nodev1.EtcdSnapshotChunk{Data: []byte("pages")})
}

// newEtcdMember serves for the node's member.
func newEtcdMember(t *testing.T, n *node) *etcdMember {
	t.Helper()
	m := &etcdMember{left: make(chan bool, 8), status: &nodev1.EtcdStatusResponse{
		MemberId: "2a", Generation: 1, Running: true, LeaderId: "2a", Revision: 7,
	}}
	listener, err := initapi.Listen(filepath.Join(n.runtime, etcdSocket))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewEtcdServiceHandler(m))
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { _ = server.Close() })
	return m
}

// TestReportsEtcd: a machine that runs a member says how it does.
func TestReportsEtcd(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	newEtcdMember(t, n)
	n.start(t)
	b.await("etcd's state", func() bool { return b.etcd.GetHealthy() })
	want := &bootv1.EtcdState{MemberId: "2a", Generation: 1, Voter: true, Healthy: true, Leader: true, Revision: 7}
	if diff := cmp.Diff(want, b.etcd, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEtcdState(t *testing.T) {
	for name, test := range map[string]struct {
		status *nodev1.EtcdStatusResponse
		want   *bootv1.EtcdState
	}{
		"not started": {&nodev1.EtcdStatusResponse{WaitingFor: "the others"}, &bootv1.EtcdState{}},
		"learner": {&nodev1.EtcdStatusResponse{MemberId: "b", Generation: 2, Running: true, Learner: true, LeaderId: "a"},
			&bootv1.EtcdState{MemberId: "b", Generation: 2}},
		"stopped": {&nodev1.EtcdStatusResponse{MemberId: "b", Generation: 2}, &bootv1.EtcdState{MemberId: "b", Generation: 2}},
		"without a leader": {&nodev1.EtcdStatusResponse{MemberId: "b", Generation: 2, Running: true},
			&bootv1.EtcdState{MemberId: "b", Generation: 2, Voter: true}},
		"not well": {&nodev1.EtcdStatusResponse{MemberId: "b", Running: true, LeaderId: "a", WaitingFor: "its alarm NOSPACE"},
			&bootv1.EtcdState{MemberId: "b", Voter: true}},
		"follower": {&nodev1.EtcdStatusResponse{MemberId: "b", Running: true, LeaderId: "a", Revision: 9},
			&bootv1.EtcdState{MemberId: "b", Voter: true, Healthy: true, Revision: 9}},
		"leader": {&nodev1.EtcdStatusResponse{MemberId: "b", Running: true, LeaderId: "b"},
			&bootv1.EtcdState{MemberId: "b", Voter: true, Healthy: true, Leader: true}},
	} {
		if diff := cmp.Diff(test.want, etcdState(test.status), protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestEtcdAPI: people reach the member over the node API, and hear it when
// there is none.
func TestEtcdAPI(t *testing.T) {
	b := newBootService(t)
	b.approved = true
	n := newNode(t, b)
	n.start(t)
	b.await("a fetch", func() bool { return b.fetches > 0 })
	client := func(role string) nodev1connect.EtcdServiceClient {
		return nodev1connect.NewEtcdServiceClient(tlsClient(t, b.ca, pair(t, b.ca, role)), "https://"+n.listen)
	}
	_, err := client(reader).Status(t.Context(), connect.NewRequest(&nodev1.EtcdStatusRequest{}))
	checkCode(t, "Status without a member", err, connect.CodeUnavailable, "runs no member of etcd")

	newEtcdMember(t, n)
	_, err = client(backup).Status(t.Context(), connect.NewRequest(&nodev1.EtcdStatusRequest{}))
	checkCode(t, "Status", err, 0, "")
	_, err = client(backup).Leave(t.Context(), connect.NewRequest(&nodev1.EtcdLeaveRequest{}))
	checkCode(t, "Leave", err, connect.CodePermissionDenied, "it has slipway:etcd-backup")
	_, err = client(admin).Defrag(t.Context(), connect.NewRequest(&nodev1.EtcdDefragRequest{}))
	checkCode(t, "Defrag", err, connect.CodeUnimplemented, "")
	stream, err := client(backup).Snapshot(t.Context(), connect.NewRequest(&nodev1.EtcdSnapshotRequest{}))
	if err != nil || !stream.Receive() || string(stream.Msg().Data) != "pages" || stream.Receive() || stream.Err() != nil {
		t.Errorf("Snapshot: %v, %v", err, stream.Err())
	}
	_, err = readAll(client(reader).Snapshot(t.Context(), connect.NewRequest(&nodev1.EtcdSnapshotRequest{})))
	checkCode(t, "Snapshot", err, connect.CodePermissionDenied, "allowed: slipway:etcd-backup")
}

func readAll(stream *connect.ServerStreamForClient[nodev1.EtcdSnapshotChunk], err error) (data []byte, _ error) {
	if err != nil {
		return nil, err
	}
	for stream.Receive() {
		data = append(data, stream.Msg().Data...)
	}
	return data, stream.Err()
}
