package api

import (
	"context"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/assign"
)

// RestoreCluster starts a cluster's etcd anew from a snapshot that is kept.
func (h *clusterHandler) RestoreCluster(ctx context.Context, request *connect.Request[bootv1.RestoreClusterRequest]) (*connect.Response[bootv1.RestoreClusterResponse], error) {
	one, err := h.Snapshots.Get(request.Msg.GetSnapshot())
	if err != nil {
		return nil, h.failed(ctx, "restore refused", err)
	}
	from := assign.Source{
		Snapshot: one.ID, SHA256: one.SHA256, Name: one.Of.Name, ID: one.Of.ID,
		Keep: func() error { return h.Snapshots.Pin(one.ID) },
	}
	c, err := h.Office.Restore(ctx, request.Msg.GetCluster(), from, request.Msg.GetDocument(), request.Msg.GetForce())
	if err != nil {
		return nil, h.failed(ctx, "restore refused", err)
	}
	h.Log.Warn("cluster is restored", "unit", service, "cluster", c.Document.Name, "snapshot", one.ID,
		"machine", c.Etcd.Grant.Machine, "generation", c.Etcd.Generation, "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.RestoreClusterResponse{Cluster: clusterTo(c, h.Now())}), nil
}

// PlanRecovery says from which member quorum would be rebuilt, and at what cost.
func (h *clusterHandler) PlanRecovery(ctx context.Context, request *connect.Request[bootv1.PlanRecoveryRequest]) (*connect.Response[bootv1.PlanRecoveryResponse], error) {
	plan, err := h.Office.PlanRecovery(ctx, request.Msg.GetCluster(), h.EtcdStatus)
	if err != nil {
		return nil, h.failed(ctx, "recovery refused", err)
	}
	return connect.NewResponse(recoveryTo(plan)), nil
}

// RecoverCluster does what was planned, if that is still so.
func (h *clusterHandler) RecoverCluster(ctx context.Context, request *connect.Request[bootv1.RecoverClusterRequest]) (*connect.Response[bootv1.RecoverClusterResponse], error) {
	c, err := h.Office.Recover(ctx, request.Msg.GetCluster(), request.Msg.GetDigest(), h.EtcdStatus)
	if err != nil {
		return nil, h.failed(ctx, "recovery refused", err)
	}
	h.Log.Warn("cluster is recovered from one member", "unit", service, "cluster", c.Document.Name,
		"machine", c.Etcd.Grant.Machine, "generation", c.Etcd.Generation, "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.RecoverClusterResponse{Cluster: clusterTo(c, h.Now())}), nil
}

func recoveryTo(plan assign.Recovery) *bootv1.PlanRecoveryResponse {
	answer := &bootv1.PlanRecoveryResponse{Silent: plan.Silent, Loss: plan.Loss, Digest: plan.Digest()}
	for _, s := range plan.Survivors {
		answer.Survivors = append(answer.Survivors, &bootv1.Survivor{
			Machine: s.Machine.ID, Hostname: s.Machine.Hostname,
			RaftTerm: s.Status.GetRaftTerm(), RaftIndex: s.Status.GetRaftIndex(), Revision: s.Status.GetRevision(),
			LastLeader: s.Status.GetLastLeader(),
		})
	}
	return answer
}
