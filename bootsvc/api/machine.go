package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/assign"
	"slipway/bootsvc/inventory"
	"slipway/configs/enroll"
)

// machineHandler is for machines: the caller's name is the machine's ID.
type machineHandler struct {
	*Server
	bootv1connect.UnimplementedMachineServiceHandler
}

const (
	// fetchWait is how long FetchConfig blocks at most.
	fetchWait = 30 * time.Second
	// maxEvents is how many events one report may have.
	maxEvents = 64
)

// eventName is what a machine may call an event.
var eventName = regexp.MustCompile(`^[a-z][a-z0-9.-]{0,31}$`)

// FetchConfig gives the machine another config than it has, or says what it waits for.
func (h *machineHandler) FetchConfig(ctx context.Context, request *connect.Request[bootv1.FetchConfigRequest]) (*connect.Response[bootv1.FetchConfigResponse], error) {
	c := callerOf(ctx)
	have, err := digestFrom(request.Msg.GetHave())
	if err != nil {
		return nil, err
	}
	config, err := h.Office.Fetch(ctx, c.name, c.keyHash, assign.Has{Digest: have, Prepared: request.Msg.Prepared}, fetchWait)
	if err != nil {
		return nil, h.failed(ctx, "config refused", err)
	}
	answer := &bootv1.FetchConfigResponse{
		Config: config.YAML, WaitingFor: config.WaitingFor, Unchanged: config.Unchanged, Released: config.Released, ByForce: config.Forced, Wipe: string(config.Wipe),
		Prepare: config.Prepare,
	}
	if config.YAML != nil {
		if answer.Certificate, err = h.Desk.Certify(config.Machine, c.key); err != nil {
			return nil, h.failed(ctx, "config refused", err)
		}
	}
	return connect.NewResponse(answer), nil
}

// AckConfig ends the delivery.
func (h *machineHandler) AckConfig(ctx context.Context, request *connect.Request[bootv1.AckConfigRequest]) (*connect.Response[bootv1.AckConfigResponse], error) {
	c := callerOf(ctx)
	if _, err := digestFrom(request.Msg.GetConfig()); err != nil {
		return nil, err
	}
	if err := h.Office.Acknowledge(ctx, c.name, c.keyHash); err != nil {
		return nil, h.failed(ctx, "acknowledgement refused", err)
	}
	return connect.NewResponse(&bootv1.AckConfigResponse{}), nil
}

// RenewCertificate signs the machine's key again.
func (h *machineHandler) RenewCertificate(ctx context.Context, _ *connect.Request[bootv1.RenewCertificateRequest]) (*connect.Response[bootv1.RenewCertificateResponse], error) {
	c := callerOf(ctx)
	m, err := h.Inventory.Get(ctx, c.name)
	if err != nil {
		return nil, h.failed(ctx, "certificate refused", err)
	}
	cert, err := h.Desk.Certify(m, c.key)
	if err != nil {
		return nil, h.failed(ctx, "certificate refused", err)
	}
	return connect.NewResponse(&bootv1.RenewCertificateResponse{Certificate: cert, Ca: h.Office.CA.View().Bundle}), nil
}

// digestFrom reads a SHA-256, as hex; nothing is nothing.
func digestFrom(sum []byte) (string, error) {
	if n := len(sum); n != 0 && n != sha256.Size {
		return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a digest has %d bytes: a SHA-256 has %d", n, sha256.Size))
	}
	return hex.EncodeToString(sum), nil
}

// RedeemBootstrap takes the one-shot token that starts a cluster's etcd.
func (h *machineHandler) RedeemBootstrap(ctx context.Context, request *connect.Request[bootv1.RedeemBootstrapRequest]) (*connect.Response[bootv1.RedeemBootstrapResponse], error) {
	c := callerOf(ctx)
	if err := h.Office.Redeem(ctx, c.name, c.keyHash, request.Msg.GetToken(), request.Msg.GetDone()); err != nil {
		return nil, h.failed(ctx, "start of etcd refused", err)
	}
	h.Log.Info("etcd's start", "unit", service, "machine", c.name, "done", request.Msg.GetDone())
	return connect.NewResponse(&bootv1.RedeemBootstrapResponse{}), nil
}

// Report adds to the machine's timeline and sets its phase and its facts.
func (h *machineHandler) Report(ctx context.Context, request *connect.Request[bootv1.ReportRequest]) (*connect.Response[bootv1.ReportResponse], error) {
	report := request.Msg
	events, err := eventsFrom(report.GetEvents(), h.Now())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	applied, err := digestFrom(report.GetApplied())
	if err != nil {
		return nil, err
	}
	phase := enroll.Phase(report.GetPhase())
	switch phase {
	case "", enroll.Installing, enroll.Joining, enroll.Ready, enroll.Failed:
	default:
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a machine cannot report the phase %q: installing, joining, ready, failed", clean(string(phase))))
	}
	disk, err := diskFrom(report.GetSystemDisk())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	facts, err := factsOf(report)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	c := callerOf(ctx)
	m, err := h.Office.Report(ctx, c.name, c.keyHash, assign.Report{
		Events: events, Phase: phase, WaitingFor: clean(report.GetWaitingFor()),
		Applied: applied, Etcd: etcdFrom(report.GetEtcd()), Disk: disk, Wiped: report.GetWiped(), Facts: facts, Trusts: c.trusting(),
	})
	if err != nil {
		return nil, h.failed(ctx, "report refused", err)
	}
	return connect.NewResponse(&bootv1.ReportResponse{Held: m.Held(), Released: m.Enrolment.Released, Wipe: string(m.Enrolment.Wipe)}), nil
}

// factsOf is what the machine says of its hardware; nil if it says nothing.
func factsOf(report *bootv1.ReportRequest) (*enroll.Facts, error) {
	if report.GetFacts() == nil {
		return nil, nil
	}
	facts, err := factsFrom(report.GetFacts())
	return &facts, err
}

// etcdFrom is what the machine says of its member; nil if it says nothing.
func etcdFrom(e *bootv1.EtcdState) *inventory.EtcdState {
	if e == nil {
		return nil
	}
	return &inventory.EtcdState{
		MemberID: clean(e.GetMemberId()), Generation: int(e.GetGeneration()),
		Voter: e.GetVoter(), Healthy: e.GetHealthy(), Leader: e.GetLeader(), Revision: e.GetRevision(),
	}
}

func eventsFrom(reported []*bootv1.Event, now time.Time) ([]inventory.Event, error) {
	if len(reported) > maxEvents {
		return nil, fmt.Errorf("%d events in one report: at most %d", len(reported), maxEvents)
	}
	var events []inventory.Event
	for _, e := range reported {
		if !eventName.MatchString(e.GetName()) {
			return nil, fmt.Errorf("%q is not an event name: a-z, 0-9, dots and dashes", clean(e.GetName()))
		}
		age := time.Duration(min(e.GetAgeMs(), 1<<40)) * time.Millisecond
		events = append(events, inventory.Event{
			Name: e.GetName(), Detail: clean(e.GetDetail()), At: inventory.Past(now, age),
		})
	}
	return events, nil
}
