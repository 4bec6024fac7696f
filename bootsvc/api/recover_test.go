package api

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/nodeinit/api/nodev1"
)

func TestAClusterIsRecoveredAsItWasPlanned(t *testing.T) {
	s, admin, node := ready(t)
	fetchConfig(t, node) // which starts its etcd
	status := &nodev1.EtcdStatusResponse{Running: true, MemberId: "a", LeaderId: "a", Generation: 1, RaftTerm: 2, RaftIndex: 9, Revision: 7}
	s.server.EtcdStatus = func(context.Context, netip.Addr) (*nodev1.EtcdStatusResponse, error) {
		if status == nil {
			return nil, errors.New("no route to host")
		}
		return status, nil
	}
	ask := func() (*bootv1.PlanRecoveryResponse, error) {
		answer, err := admin.PlanRecovery(t.Context(), connect.NewRequest(&bootv1.PlanRecoveryRequest{}))
		if err != nil {
			return nil, err
		}
		return answer.Msg, nil
	}
	_, err := ask()
	wantCode(t, "a healthy cluster", err, connect.CodeFailedPrecondition, "nothing to recover")
	status.LeaderId = ""
	plan, err := ask()
	if err != nil || len(plan.GetSurvivors()) != 1 || plan.GetSurvivors()[0].GetHostname() != "prod-cp-1" || plan.GetSurvivors()[0].GetRevision() != 7 || plan.GetLoss() == "" {
		t.Fatalf("the plan is %v, %v", plan, err)
	}
	_, err = admin.RecoverCluster(t.Context(), connect.NewRequest(&bootv1.RecoverClusterRequest{Digest: []byte("another")}))
	wantCode(t, "without a plan", err, connect.CodeAborted, "nothing was changed")
	if _, err := admin.RecoverCluster(t.Context(), connect.NewRequest(&bootv1.RecoverClusterRequest{Digest: plan.GetDigest()})); err != nil {
		t.Fatal(err)
	}
	config := fetchConfig(t, node)
	if config.Etcd.Generation != 2 || config.Etcd.Bootstrap == nil || !config.Etcd.Bootstrap.Recover {
		t.Errorf("the config says %+v", config.Etcd)
	}
	status = nil
	_, err = ask()
	wantCode(t, "nobody answers", err, connect.CodeFailedPrecondition, "slipway cluster restore")
}
