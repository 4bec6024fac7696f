package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/controlplane/etcd"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// chunk is how much of a snapshot goes in one message, in bytes.
const chunk = 256 << 10

// serve answers on the Unix socket until ctx is done.
func (s *Service) serve(ctx context.Context) error {
	listener, err := listen(s.Paths.Socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewEtcdServiceHandler(handler{s: s}, connect.WithReadMaxBytes(64<<10)))
	mux.HandleFunc(etcd.ReadyPath, func(w http.ResponseWriter, _ *http.Request) {
		if t := s.state(); !t.mayStart {
			http.Error(w, t.waiting, http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", s.Paths.Socket, err)
	}
	return nil
}

// listen makes a Unix socket for root alone, in place of one whose server is gone.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the socket: %w", err)
	}
	temp := path + ".new"
	os.Remove(temp)
	listener, err := net.Listen("unix", temp)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("guard the socket: %w", err), listener.Close())
	}
	return listener, nil
}

// handler is EtcdService.
type handler struct {
	nodev1connect.UnimplementedEtcdServiceHandler
	s *Service
}

// Status says how the member is; it answers too when etcd does not run.
func (h handler) Status(ctx context.Context, _ *connect.Request[nodev1.EtcdStatusRequest]) (*connect.Response[nodev1.EtcdStatusResponse], error) {
	settings, err := h.s.settings()
	if err != nil {
		return nil, err
	}
	t, m := h.s.state(), h.s.measured()
	out := &nodev1.EtcdStatusResponse{
		Name: settings.Name, Generation: int32(settings.Generation), WaitingFor: t.waiting,
		FsyncP99Us: m.Fsync.Microseconds(), RoundTripUs: m.RoundTrip.Microseconds(),
		HeartbeatMs: int32(t.heartbeat.Milliseconds()), ElectionMs: int32(t.election.Milliseconds()),
	}
	if !t.lastSeen.IsZero() {
		out.LastLeader = timestamppb.New(t.lastSeen)
	}
	if own, err := h.s.status(ctx); err != nil {
		h.fromData(settings, out)
	} else {
		fill(out, own)
	}
	return connect.NewResponse(out), nil
}

// fromData is what the data says of a member that does not run.
func (h handler) fromData(settings *etcd.Settings, out *nodev1.EtcdStatusResponse) {
	data, err := h.s.store().look(settings.Generation, settings.Cluster)
	if err == nil && data.State == etcd.Ours {
		out.MemberId, out.ClusterId = idText(data.MemberID), idText(data.ClusterID)
	}
}

func fill(out *nodev1.EtcdStatusResponse, st *clientv3.StatusResponse) {
	out.Running, out.Learner, out.Version = true, st.IsLearner, st.Version
	out.MemberId, out.ClusterId, out.LeaderId = idText(st.Header.MemberId), idText(st.Header.ClusterId), idText(st.Leader)
	out.RaftTerm, out.RaftIndex, out.Revision = st.RaftTerm, st.RaftIndex, st.Header.Revision
	out.DbSize, out.DbInUse, out.Alarms = st.DbSize, st.DbSizeInUse, st.Errors
}

func idText(id uint64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatUint(id, 16)
}

// Members lists the members.
func (h handler) Members(ctx context.Context, _ *connect.Request[nodev1.EtcdMembersRequest]) (*connect.Response[nodev1.EtcdMembersResponse], error) {
	c, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	out := &nodev1.EtcdMembersResponse{}
	for i, m := range c.own.members {
		out.Members = append(out.Members, &nodev1.EtcdMember{
			Id: idText(m.ID), Name: m.Name, PeerUrls: m.PeerURLs, ClientUrls: m.ClientURLs, Learner: m.IsLearner,
			Leader: m.ID == c.own.status.Leader, Healthy: c.members[i].Healthy,
		})
	}
	return connect.NewResponse(out), nil
}

// cluster is the membership as it is now, with who answers.
type cluster struct {
	client   *clientv3.Client
	own      answer
	members  []etcd.Member
	settings *etcd.Settings
}

func (h handler) endpoint() string { return "https://" + h.s.Paths.Local }

// look asks this member and all others.
func (h handler) look(ctx context.Context) (*cluster, error) {
	settings, err := h.s.settings()
	if err != nil {
		return nil, err
	}
	own := h.s.ask(ctx, h.endpoint())
	if own.err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("etcd does not answer on this node: %s; ask another one", reason(own.err)))
	}
	if own.status.IsLearner {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("this node's member is a learner, which cannot tell; ask another node"))
	}
	client, err := h.s.clients.to(h.endpoint())
	if err != nil {
		return nil, err
	}
	answers := append(h.s.survey(ctx, settings), own)
	return &cluster{client, own, withHealth(own.members, answers), settings}, nil
}

// find is a member by ID or name.
func (c *cluster) find(who string) (etcd.Member, error) {
	for _, m := range c.members {
		if idText(m.ID) == strings.ToLower(who) || m.Name == who && who != "" {
			return m, nil
		}
	}
	return etcd.Member{}, connect.NewError(connect.CodeNotFound, fmt.Errorf("%q is no member; slipway etcd members lists them", who))
}

// guard refuses what would cost the quorum.
func (c *cluster) guard(m etcd.Member) error {
	if etcd.QuorumWithout(c.members, m.ID) {
		return nil
	}
	return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("without %s those who answer are no quorum; nothing was changed; add or start a member first; if those that do not answer are gone for good, slipway cluster recover; slipway node reset --force gives its machine's data up nevertheless, if that answers", m))
}

// Remove takes a member out. It cannot be forced: etcd itself refuses what would
// cost the quorum.
func (h handler) Remove(ctx context.Context, request *connect.Request[nodev1.EtcdRemoveRequest]) (*connect.Response[nodev1.EtcdRemoveResponse], error) {
	c, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	m, err := c.find(request.Msg.Member)
	if err != nil {
		return nil, err
	}
	if err := c.guard(m); err != nil {
		return nil, err
	}
	if m.ID == c.own.status.Header.MemberId {
		err = h.removeSelf(ctx, h.s.survey(ctx, c.settings), m.ID)
	} else {
		err = settled(ctx, func() error { _, err := c.client.MemberRemove(ctx, m.ID); return err })
	}
	if err != nil {
		return nil, problem("remove "+m.String(), err)
	}
	return connect.NewResponse(&nodev1.EtcdRemoveResponse{}), nil
}

// Promote makes a learner a voter.
func (h handler) Promote(ctx context.Context, request *connect.Request[nodev1.EtcdPromoteRequest]) (*connect.Response[nodev1.EtcdPromoteResponse], error) {
	c, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	m, err := c.find(request.Msg.Member)
	if err != nil {
		return nil, err
	}
	if _, err := c.client.MemberPromote(ctx, m.ID); err != nil {
		return nil, problem("promote "+m.String(), err)
	}
	return connect.NewResponse(&nodev1.EtcdPromoteResponse{}), nil
}

// Defrag gives free pages back.
func (h handler) Defrag(ctx context.Context, _ *connect.Request[nodev1.EtcdDefragRequest]) (*connect.Response[nodev1.EtcdDefragResponse], error) {
	before, err := h.s.status(ctx)
	if err != nil {
		return nil, problem("defragment", err)
	}
	if err := h.s.defrag(ctx); err != nil {
		return nil, problem("defragment", err)
	}
	after, err := h.s.status(ctx)
	if err != nil {
		return nil, problem("look at the database afterwards", err)
	}
	return connect.NewResponse(&nodev1.EtcdDefragResponse{Before: before.DbSize, After: after.DbSize}), nil
}

// ForfeitLeadership moves leadership to another voter that answers.
func (h handler) ForfeitLeadership(ctx context.Context, _ *connect.Request[nodev1.EtcdForfeitLeadershipRequest]) (*connect.Response[nodev1.EtcdForfeitLeadershipResponse], error) {
	c, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	leader, err := c.moveLeader(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&nodev1.EtcdForfeitLeadershipResponse{Leader: leader}), nil
}

// moveLeader gives leadership away if this member has it, and returns who leads.
func (c *cluster) moveLeader(ctx context.Context) (string, error) {
	self := c.own.status.Header.MemberId
	for _, m := range c.members {
		switch {
		case c.own.status.Leader != self && m.ID == c.own.status.Leader:
			return m.Name, nil
		case c.own.status.Leader == self && m.ID != self && m.Healthy && !m.Learner:
			if _, err := c.client.MoveLeader(ctx, m.ID); err != nil {
				return "", problem("move leadership to "+m.Name, err)
			}
			return m.Name, nil
		}
	}
	return "", connect.NewError(connect.CodeFailedPrecondition, errors.New("there is no other voter that answers; nothing was changed"))
}

// Snapshot streams the database and its hash.
func (h handler) Snapshot(ctx context.Context, _ *connect.Request[nodev1.EtcdSnapshotRequest], out *connect.ServerStream[nodev1.EtcdSnapshotChunk]) error {
	client, err := h.s.clients.to(h.endpoint())
	if err != nil {
		return err
	}
	snapshot, err := client.SnapshotWithVersion(ctx)
	if err != nil {
		return problem("take a snapshot", err)
	}
	defer snapshot.Snapshot.Close()
	for buffer := make([]byte, chunk); ; {
		n, err := io.ReadFull(snapshot.Snapshot, buffer)
		if n > 0 {
			if err := out.Send(&nodev1.EtcdSnapshotChunk{Data: buffer[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return problem("take a snapshot", err)
		}
	}
}

// Leave takes this member out for good. The data is marked first: a machine
// that loses its power in between is a voter that stays silent, which `slipway
// etcd remove` mends, and not one that comes back.
func (h handler) Leave(ctx context.Context, request *connect.Request[nodev1.EtcdLeaveRequest]) (*connect.Response[nodev1.EtcdLeaveResponse], error) {
	settings, err := h.s.settings()
	if err != nil {
		return nil, err
	}
	left := mark{Cluster: settings.Cluster, Left: true}
	if data, err := h.s.store().look(settings.Generation, settings.Cluster); err == nil && (data.State == etcd.Left || data.State == etcd.NoData) {
		return connect.NewResponse(&nodev1.EtcdLeaveResponse{}), h.s.store().setMark(settings.Generation, left)
	}
	err = h.leave(ctx, request.Msg.Force, func() error { return h.s.store().setMark(settings.Generation, left) })
	if err != nil && !request.Msg.Force {
		return nil, errors.Join(err, h.s.store().setMark(settings.Generation, mark{Cluster: settings.Cluster}))
	}
	return connect.NewResponse(&nodev1.EtcdLeaveResponse{}), h.s.store().setMark(settings.Generation, left)
}

func (h handler) leave(ctx context.Context, force bool, mark func() error) error {
	own := h.s.ask(ctx, h.endpoint())
	if own.err != nil {
		return problem("leave", own.err)
	}
	settings, err := h.s.settings()
	if err != nil {
		return err
	}
	id, others := own.status.Header.MemberId, h.s.survey(ctx, settings)
	if !own.status.IsLearner {
		c, err := h.look(ctx)
		if err != nil {
			return err
		}
		if err := c.guard(etcd.Member{ID: id, Name: settings.Name, PeerURL: settings.Self().PeerURL()}); err != nil && !force {
			return err
		}
		if own.status.Leader == id {
			if _, err := c.moveLeader(ctx); err != nil {
				return err
			}
		}
	}
	if err := mark(); err != nil {
		return err
	}
	return h.removeSelf(ctx, others, id)
}

// removeSelf has another voter remove this member: the one that goes would not
// live to see the answer.
func (h handler) removeSelf(ctx context.Context, others []answer, id uint64) error {
	err := settled(ctx, func() error {
		return h.s.byOthers(ctx, others, "remove this member", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.MemberRemove(ctx, id)
			if errors.Is(err, rpctypes.ErrMemberNotFound) {
				return nil
			}
			return err
		})
	})
	if errors.Is(err, errAgain) {
		return nil
	}
	return err
}

// settled calls do until etcd no longer says that members have not been
// connected for long enough: it wants five seconds of them before it removes one.
func settled(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, etcd.SettleTime)
	defer cancel()
	for {
		err := do()
		switch {
		case !errors.Is(err, rpctypes.ErrUnhealthy):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%w: too few of the members that would remain have been connected for long enough, after %v; it is still a member; slipway etcd members says who is away: start it, then try again", err, etcd.SettleTime)
		}
		pause(ctx, pollInterval)
	}
}

// problem gives an error of etcd's the code that fits, and its own words.
func problem(what string, err error) error {
	code := connect.CodeFailedPrecondition
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		code = connect.CodeUnavailable
	}
	return connect.NewError(code, fmt.Errorf("%s: %s", what, reason(err)))
}
