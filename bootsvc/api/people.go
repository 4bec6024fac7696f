package api

import (
	"context"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/assign"
	"slipway/configs/enroll"
	"slipway/configs/wipe"
)

// inventoryHandler shows and approves machines.
type inventoryHandler struct{ *Server }

// ListMachines lists all machines in the order of their discovery.
func (h *inventoryHandler) ListMachines(ctx context.Context, _ *connect.Request[bootv1.ListMachinesRequest]) (*connect.Response[bootv1.ListMachinesResponse], error) {
	machines, err := h.Inventory.List(ctx)
	if err != nil {
		return nil, h.failed(ctx, "list refused", err)
	}
	answer := &bootv1.ListMachinesResponse{}
	for _, m := range machines {
		answer.Machines = append(answer.Machines, machineTo(m, h.Now()))
	}
	return connect.NewResponse(answer), nil
}

// GetMachine shows one machine with the timeline of its latest boot.
func (h *inventoryHandler) GetMachine(ctx context.Context, request *connect.Request[bootv1.GetMachineRequest]) (*connect.Response[bootv1.GetMachineResponse], error) {
	id, err := enroll.ParseMachineID(request.Msg.GetId())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	m, err := h.Inventory.Get(ctx, id)
	if err != nil {
		return nil, h.failed(ctx, "unknown machine", err)
	}
	line, err := h.Inventory.Timeline(ctx, id)
	if err != nil {
		return nil, h.failed(ctx, "timeline refused", err)
	}
	answer := machineTo(m, h.Now())
	answer.Timeline = eventsTo(line.Latest())
	return connect.NewResponse(&bootv1.GetMachineResponse{Machine: answer}), nil
}

// Approve approves the key whose words are given.
func (h *inventoryHandler) Approve(ctx context.Context, request *connect.Request[bootv1.ApproveRequest]) (*connect.Response[bootv1.ApproveResponse], error) {
	id, err := enroll.ParseMachineID(request.Msg.GetId())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	person := callerOf(ctx).name
	m, err := h.Desk.Approve(ctx, id, request.Msg.GetWords(), person)
	if err != nil {
		return nil, h.failed(ctx, "approval refused", err)
	}
	h.Log.Info("machine approved", "unit", service, "machine", id, "person", person)
	return connect.NewResponse(&bootv1.ApproveResponse{Machine: machineTo(m, h.Now())}), nil
}

// clusterHandler makes and shows clusters.
type clusterHandler struct {
	*Server
	bootv1connect.UnimplementedClusterServiceHandler
}

// CreateCluster stores a cluster and claims its machines.
func (h *clusterHandler) CreateCluster(ctx context.Context, request *connect.Request[bootv1.CreateClusterRequest]) (*connect.Response[bootv1.CreateClusterResponse], error) {
	c, err := h.Office.Create(ctx, request.Msg.GetCluster())
	if err != nil {
		return nil, h.failed(ctx, "cluster refused", err)
	}
	h.Log.Info("cluster created", "unit", service, "cluster", c.Document.Name, "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.CreateClusterResponse{Cluster: clusterTo(c, h.Now())}), nil
}

// GetCluster shows a cluster and its machines.
func (h *clusterHandler) GetCluster(ctx context.Context, request *connect.Request[bootv1.GetClusterRequest]) (*connect.Response[bootv1.GetClusterResponse], error) {
	c, err := h.Office.Show(ctx, request.Msg.GetName())
	if err != nil {
		return nil, h.failed(ctx, "unknown cluster", err)
	}
	answer, err := h.withRotations(ctx, c)
	if err != nil {
		return nil, h.failed(ctx, "rotations not shown", err)
	}
	return connect.NewResponse(&bootv1.GetClusterResponse{Cluster: answer}), nil
}

// UpdateCluster replaces a cluster's document.
func (h *clusterHandler) UpdateCluster(ctx context.Context, request *connect.Request[bootv1.UpdateClusterRequest]) (*connect.Response[bootv1.UpdateClusterResponse], error) {
	how, err := wipe.Parse(request.Msg.GetWipe())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	c, err := h.Office.Update(ctx, request.Msg.GetCluster(), assign.Leave{Force: request.Msg.GetForce(), Wipe: how})
	if err != nil {
		return nil, h.failed(ctx, "cluster refused", err)
	}
	h.Log.Info("cluster updated", "unit", service, "cluster", c.Document.Name, "revision", c.Revision, "forced", request.Msg.GetForce(), "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.UpdateClusterResponse{Cluster: clusterTo(c, h.Now())}), nil
}

// DeleteCluster gives a cluster up.
func (h *clusterHandler) DeleteCluster(ctx context.Context, request *connect.Request[bootv1.DeleteClusterRequest]) (*connect.Response[bootv1.DeleteClusterResponse], error) {
	how, err := wipe.Parse(request.Msg.GetWipe())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err := h.Office.Delete(ctx, request.Msg.GetName(), how); err != nil {
		return nil, h.failed(ctx, "deletion refused", err)
	}
	h.Log.Info("cluster deleted", "unit", service, "cluster", request.Msg.GetName(), "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.DeleteClusterResponse{}), nil
}

// Kubeconfig issues a day's admin credentials for a cluster.
func (h *clusterHandler) Kubeconfig(ctx context.Context, request *connect.Request[bootv1.KubeconfigRequest]) (*connect.Response[bootv1.KubeconfigResponse], error) {
	person := callerOf(ctx).name
	text, err := h.Office.Kubeconfig(ctx, request.Msg.GetName(), person)
	if err != nil {
		return nil, h.failed(ctx, "kubeconfig refused", err)
	}
	h.Log.Info("cluster credentials issued", "unit", service, "cluster", request.Msg.GetName(), "person", person)
	return connect.NewResponse(&bootv1.KubeconfigResponse{Kubeconfig: text}), nil
}
