package api

import (
	"context"
	"fmt"
	"net/netip"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/enroll"
)

// enrollHandler is the one service that strangers may call, so it has a ration
// for each of them.
type enrollHandler struct {
	*Server
	ration *ration
}

func newEnrollHandler(s *Server) *enrollHandler {
	return &enrollHandler{s, newRation(s.Now)}
}

// Enroll takes a machine's facts and key.
func (h *enrollHandler) Enroll(ctx context.Context, request *connect.Request[bootv1.EnrollRequest]) (*connect.Response[bootv1.EnrollResponse], error) {
	from := callerOf(ctx).address
	if !h.ration.allow(from) {
		h.Refusals.Refuse(service, from.String(), "enrolment too often")
		return nil, connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("too many enrolments from %s: try again in a few seconds", from))
	}
	r, err := enrolment(request.Msg, from)
	if err != nil {
		return nil, h.failed(ctx, "enrolment refused", err)
	}
	_, cert, err := h.Desk.Enrol(ctx, r)
	if err != nil {
		return nil, h.failed(ctx, "enrolment refused", err)
	}
	answer := &bootv1.EnrollResponse{State: bootv1.EnrollResponse_PENDING, ServerTime: timestamppb.New(h.Now())}
	if cert == nil {
		answer.WaitingFor = "approval"
		return connect.NewResponse(answer), nil
	}
	answer.State = bootv1.EnrollResponse_APPROVED
	answer.Certificate, answer.Ca = cert, h.Office.CA.View().Bundle
	return connect.NewResponse(answer), nil
}

// enrolment reads a request. A machine may name only the address that it calls
// from: its certificate will speak for that address.
func enrolment(m *bootv1.EnrollRequest, from netip.Addr) (enroll.Request, error) {
	facts, err := factsFrom(m.GetFacts())
	if err != nil {
		return enroll.Request{}, fmt.Errorf("%w: %w", enroll.ErrRequest, err)
	}
	address, err := netip.ParseAddr(m.GetAddress())
	if err != nil || address != from {
		return enroll.Request{}, fmt.Errorf("%w: the address %s is not the one the request comes from, %s", enroll.ErrRequest, clean(m.GetAddress()), from)
	}
	return enroll.Request{MachineID: m.GetMachineId(), Facts: facts, CSR: m.GetCsr(), Address: address, Checked: m.GetChecked()}, nil
}
