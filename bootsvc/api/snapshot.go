package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/snapshot"
)

// takeTimeout is how long a snapshot that a person asked for may take.
const takeTimeout = 30 * time.Minute

// uploaded is who took a snapshot that came from a file.
const uploaded = "upload"

// TakeSnapshot has a snapshot taken from a member, and keeps it.
func (h *clusterHandler) TakeSnapshot(ctx context.Context, request *connect.Request[bootv1.TakeSnapshotRequest]) (*connect.Response[bootv1.TakeSnapshotResponse], error) {
	c, err := h.Office.Get(ctx, request.Msg.GetCluster())
	if err != nil {
		return nil, h.failed(ctx, "unknown cluster", err)
	}
	members, err := c.Members()
	if err != nil {
		return nil, h.failed(ctx, "snapshot refused", err)
	}
	extend(ctx, takeTimeout)
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	one, err := h.Take(ctx, snapshot.Origin{Cluster: c.Document.Name, By: callerOf(ctx).name}, snapshot.MembersOf(members))
	if err != nil {
		return nil, h.failed(ctx, "snapshot failed", err)
	}
	return connect.NewResponse(&bootv1.TakeSnapshotResponse{Snapshot: snapshotTo(one)}), nil
}

// ListSnapshots lists what is kept, of one cluster or of all, oldest first.
func (h *clusterHandler) ListSnapshots(ctx context.Context, request *connect.Request[bootv1.ListSnapshotsRequest]) (*connect.Response[bootv1.ListSnapshotsResponse], error) {
	all, err := h.Snapshots.List(request.Msg.GetCluster())
	if err != nil {
		return nil, h.failed(ctx, "snapshots refused", err)
	}
	answer := &bootv1.ListSnapshotsResponse{}
	for _, one := range all {
		answer.Snapshots = append(answer.Snapshots, snapshotTo(one))
	}
	return connect.NewResponse(answer), nil
}

// ReadSnapshot streams a snapshot to a person.
func (h *clusterHandler) ReadSnapshot(ctx context.Context, request *connect.Request[bootv1.ReadSnapshotRequest], out *connect.ServerStream[bootv1.SnapshotChunk]) error {
	h.Log.Info("snapshot read", "unit", service, "snapshot", clean(request.Msg.GetId()), "person", callerOf(ctx).name)
	return h.send(ctx, request.Msg.GetId(), out)
}

// FetchSnapshot streams a snapshot to the machine that is to restore it.
func (h *machineHandler) FetchSnapshot(ctx context.Context, request *connect.Request[bootv1.FetchSnapshotRequest], out *connect.ServerStream[bootv1.SnapshotChunk]) error {
	c := callerOf(ctx)
	granted, err := h.Office.Granted(ctx, c.name, c.keyHash)
	if err == nil && granted != hex.EncodeToString(request.Msg.GetSha256()) {
		err = fmt.Errorf("%w: it may have %.8s... only", snapshot.ErrNotFound, granted)
	}
	var one snapshot.Snapshot
	if err == nil {
		one, err = h.Snapshots.Find(granted)
	}
	if err != nil {
		return h.failed(ctx, "snapshot refused", err)
	}
	return h.send(ctx, one.ID, out)
}

// send streams a snapshot's file.
func (s *Server) send(ctx context.Context, id string, out *connect.ServerStream[bootv1.SnapshotChunk]) error {
	file, err := s.Snapshots.Read(id)
	if err != nil {
		return s.failed(ctx, "snapshot refused", err)
	}
	defer file.Close()
	for piece := make([]byte, maxChunk); ; {
		n, err := io.ReadFull(file, piece)
		if n > 0 {
			extend(ctx, writeTimeout)
			if err := out.Send(&bootv1.SnapshotChunk{Data: piece[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return s.failed(ctx, "snapshot broke off", err)
		}
	}
}

// UploadSnapshot keeps a snapshot that a person has as a file.
func (h *clusterHandler) UploadSnapshot(ctx context.Context, in *connect.ClientStream[bootv1.UploadSnapshotRequest]) (*connect.Response[bootv1.UploadSnapshotResponse], error) {
	extend(ctx, writeTimeout)
	if !in.Receive() {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.Join(errors.New("the upload has no first message, which names the cluster"), in.Err()))
	}
	c, err := h.Office.Get(ctx, in.Msg().GetCluster())
	if err != nil {
		return nil, h.failed(ctx, "unknown cluster", err)
	}
	first := bytes.NewReader(in.Msg().GetData())
	rest := snapshot.FromChunks(func() ([]byte, error) {
		extend(ctx, writeTimeout)
		if in.Receive() {
			return in.Msg().GetData(), nil
		}
		if err := in.Err(); err != nil {
			return nil, err
		}
		extend(ctx, takeTimeout) // the check comes next, and it takes what it takes
		return nil, io.EOF
	})
	one, err := h.Snapshots.Keep(snapshot.Origin{Cluster: c.Document.Name, By: uploaded}, io.MultiReader(first, rest))
	if err != nil {
		return nil, h.failed(ctx, "upload refused", err)
	}
	h.Log.Info("snapshot uploaded", "unit", service, "snapshot", one.ID, "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.UploadSnapshotResponse{Snapshot: snapshotTo(one)}), nil
}

func snapshotTo(one snapshot.Snapshot) *bootv1.Snapshot {
	sum, _ := hex.DecodeString(one.SHA256) // the store made it
	return &bootv1.Snapshot{
		Id: one.ID, Cluster: one.Cluster, Taken: timestamppb.New(one.Taken), Size: one.Size,
		Sha256: sum, Revision: one.Revision, By: one.By,
	}
}
