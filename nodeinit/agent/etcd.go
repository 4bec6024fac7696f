package agent

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"slipway/bootsvc/api/bootv1"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// etcdSocket is the Unix socket, below the runtime directory, where the unit
// etcd-member answers for this node's member.
const etcdSocket = "etcd.sock"

// etcdClient speaks to the unit etcd-member, if there is one.
func (a *agent) etcdClient() (nodev1connect.EtcdServiceClient, func()) {
	transport := unixTransport(filepath.Join(a.runtime, etcdSocket))
	return nodev1connect.NewEtcdServiceClient(&http.Client{Transport: transport}, "http://etcd-member"), transport.CloseIdleConnections
}

// etcdForward is the EtcdService of the unit etcd-member, passed on.
type etcdForward struct {
	nodev1connect.UnimplementedEtcdServiceHandler
	to nodev1connect.EtcdServiceClient
}

func (f etcdForward) Status(ctx context.Context, r *connect.Request[nodev1.EtcdStatusRequest]) (*connect.Response[nodev1.EtcdStatusResponse], error) {
	return pass(ctx, r, f.to.Status)
}

func (f etcdForward) Members(ctx context.Context, r *connect.Request[nodev1.EtcdMembersRequest]) (*connect.Response[nodev1.EtcdMembersResponse], error) {
	return pass(ctx, r, f.to.Members)
}

func (f etcdForward) Remove(ctx context.Context, r *connect.Request[nodev1.EtcdRemoveRequest]) (*connect.Response[nodev1.EtcdRemoveResponse], error) {
	return pass(ctx, r, f.to.Remove)
}

func (f etcdForward) Promote(ctx context.Context, r *connect.Request[nodev1.EtcdPromoteRequest]) (*connect.Response[nodev1.EtcdPromoteResponse], error) {
	return pass(ctx, r, f.to.Promote)
}

func (f etcdForward) Defrag(ctx context.Context, r *connect.Request[nodev1.EtcdDefragRequest]) (*connect.Response[nodev1.EtcdDefragResponse], error) {
	return pass(ctx, r, f.to.Defrag)
}

func (f etcdForward) ForfeitLeadership(ctx context.Context, r *connect.Request[nodev1.EtcdForfeitLeadershipRequest]) (*connect.Response[nodev1.EtcdForfeitLeadershipResponse], error) {
	return pass(ctx, r, f.to.ForfeitLeadership)
}

func (f etcdForward) Leave(ctx context.Context, r *connect.Request[nodev1.EtcdLeaveRequest]) (*connect.Response[nodev1.EtcdLeaveResponse], error) {
	return pass(ctx, r, f.to.Leave)
}

func (f etcdForward) Snapshot(ctx context.Context, r *connect.Request[nodev1.EtcdSnapshotRequest], out *connect.ServerStream[nodev1.EtcdSnapshotChunk]) error {
	in, err := f.to.Snapshot(ctx, connect.NewRequest(r.Msg))
	return noMember(relay(in, err, out))
}

// pass makes a call in the name of another.
func pass[Q, A any](ctx context.Context, r *connect.Request[Q], call func(context.Context, *connect.Request[Q]) (*connect.Response[A], error)) (*connect.Response[A], error) {
	answer, err := call(ctx, connect.NewRequest(r.Msg))
	if err != nil {
		return nil, noMember(err)
	}
	return connect.NewResponse(answer.Msg), nil
}

// errNoMember says that nobody answers for a member of etcd here.
var errNoMember = errors.New("this machine runs no member of etcd, or its unit etcd-member does not answer: see `slipway node services`")

// noMember puts a missing socket into words.
func noMember(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return connect.NewError(connect.CodeUnavailable, errNoMember)
	}
	return err
}

// lookAtEtcd is how often the member is asked how it does.
const lookAtEtcd = 10 * time.Second

// watchEtcd reports how this machine's member of etcd does, while it is to
// have one, until ctx ends.
func (f *follower) watchEtcd(ctx context.Context) error {
	etcd, done := f.agent.etcdClient()
	defer done()
	tick := time.NewTicker(lookAtEtcd)
	defer tick.Stop()
	for {
		f.reports.etcdState(f.askEtcd(ctx, etcd))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// askEtcd is nil for a machine that runs no member. A member that does not
// answer is one that is not healthy.
func (f *follower) askEtcd(ctx context.Context, etcd nodev1connect.EtcdServiceClient) *bootv1.EtcdState {
	config := f.current.Load()
	if config == nil || !config.IsMember() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookAtEtcd)
	defer cancel()
	answer, err := etcd.Status(ctx, connect.NewRequest(&nodev1.EtcdStatusRequest{}))
	if err != nil {
		return &bootv1.EtcdState{}
	}
	return etcdState(answer.Msg)
}

// etcdState is what the boot service is told of a member. One that does not
// run is no voter, whatever it was: it cannot say.
func etcdState(s *nodev1.EtcdStatusResponse) *bootv1.EtcdState {
	voter := s.Running && s.MemberId != "" && !s.Learner
	return &bootv1.EtcdState{
		MemberId: s.MemberId, Generation: s.Generation, Revision: s.Revision,
		Voter:   voter,
		Healthy: voter && s.LeaderId != "" && s.WaitingFor == "",
		Leader:  voter && s.LeaderId == s.MemberId,
	}
}

// sameEtcd says whether two states differ in no more than the revision, which
// is news only to those who ask for it.
func sameEtcd(a, b *bootv1.EtcdState) bool {
	if a == nil || b == nil {
		return a == b
	}
	c := proto.CloneOf(a)
	c.Revision = b.Revision
	return proto.Equal(c, b)
}
