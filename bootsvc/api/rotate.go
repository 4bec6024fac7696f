package api

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/assign"
)

// Rotate begins a rotation; it goes on by itself.
func (h *clusterHandler) Rotate(ctx context.Context, request *connect.Request[bootv1.RotateRequest]) (*connect.Response[bootv1.RotateResponse], error) {
	what, err := assign.ParseWhat(request.Msg.GetWhat())
	if err != nil {
		return nil, h.failed(ctx, "rotation refused", err)
	}
	c, err := h.Office.Rotate(ctx, request.Msg.GetCluster(), what)
	if err != nil {
		return nil, h.failed(ctx, "rotation refused", err)
	}
	h.Log.Info("rotation begun", "unit", service, "cluster", c.Document.Name, "what", what, "person", callerOf(ctx).name)
	answer, err := h.withRotations(ctx, c)
	if err != nil {
		return nil, h.failed(ctx, "rotations not shown", err)
	}
	return connect.NewResponse(&bootv1.RotateResponse{Cluster: answer}), nil
}

// withRotations is the cluster as the API shows it, with what is being rotated.
func (s *Server) withRotations(ctx context.Context, c assign.Cluster) (*bootv1.Cluster, error) {
	rotations, err := s.Office.Rotations(ctx, c)
	if err != nil {
		return nil, err
	}
	answer := clusterTo(c, s.Now())
	for _, r := range rotations {
		answer.Rotations = append(answer.Rotations, &bootv1.Rotation{
			What: string(r.What), Phase: string(r.Phase), WaitingFor: r.WaitingFor, Since: timestamppb.New(r.Since),
		})
	}
	return answer, nil
}
