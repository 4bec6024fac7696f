package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/machine"
	"slipway/controlplane/pki"
)

// taker is a machine that takes its configs and is well with each.
type taker struct {
	bootv1connect.MachineServiceClient
	have []byte
}

// take fetches the next config, stores it, and runs with it.
func (m *taker) take(t *testing.T) *machine.Config {
	t.Helper()
	answer, err := m.FetchConfig(t.Context(), connect.NewRequest(&bootv1.FetchConfigRequest{Have: m.have}))
	if err != nil {
		t.Fatal(err)
	}
	config, err := machine.Parse(answer.Msg.GetConfig(), "config")
	if err != nil {
		t.Fatalf("%v: the machine waits for %q", err, answer.Msg.GetWaitingFor())
	}
	sum := sha256.Sum256(answer.Msg.GetConfig())
	m.have = sum[:]
	if _, err := m.AckConfig(t.Context(), connect.NewRequest(&bootv1.AckConfigRequest{Config: m.have})); err != nil {
		t.Fatal(err)
	}
	_, err = m.Report(t.Context(), connect.NewRequest(&bootv1.ReportRequest{
		Phase: "ready", Applied: m.have, Etcd: &bootv1.EtcdState{MemberId: "1", Generation: int32(config.Etcd.Generation), Voter: true, Healthy: true},
	}))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestARotationFromItsBeginningToItsEnd: a person begins it, the machine gets a
// config for each phase when it has taken the one before.
func TestARotationFromItsBeginningToItsEnd(t *testing.T) {
	s, admin, client := ready(t)
	m := &taker{MachineServiceClient: client}
	m.take(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.server.Office.RunRotations(ctx, slog.New(slog.DiscardHandler)) }()
	var answer *bootv1.Cluster
	for range 2 { // it may be repeated
		got, err := admin.Rotate(t.Context(), connect.NewRequest(&bootv1.RotateRequest{Cluster: "prod", What: "etcd-ca"}))
		if err != nil {
			t.Fatal(err)
		}
		answer = got.Msg.GetCluster()
	}
	if r := answer.GetRotations(); len(r) != 1 || r[0].GetWhat() != "etcd-ca" || r[0].GetPhase() != "trust" || r[0].GetSince() == nil ||
		!strings.Contains(r[0].GetWaitingFor(), machineID) {
		t.Errorf("the rotations are %v", r)
	}
	var cas []string
	for range 3 {
		cas = append(cas, m.take(t).Etcd.CA)
	}
	old, fresh, _ := strings.Cut(cas[0], "-----END CERTIFICATE-----\n")
	old += "-----END CERTIFICATE-----\n"
	if cas[1] != fresh+old || cas[2] != fresh {
		t.Errorf("the CAs, one after the other, are\n%s", strings.Join(cas, "\n"))
	}
	soon, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	err := s.server.Inventory.WaitFor(soon, func() (bool, error) {
		got, err := admin.GetCluster(soon, connect.NewRequest(&bootv1.GetClusterRequest{}))
		return err == nil && len(got.Msg.GetCluster().GetRotations()) == 0, err
	})
	if err != nil {
		t.Errorf("it does not end: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRotationsThatAreRefused(t *testing.T) {
	s, admin, _ := ready(t)
	rotate := func(c bootv1connect.ClusterServiceClient, cluster, what string) error {
		_, err := c.Rotate(t.Context(), connect.NewRequest(&bootv1.RotateRequest{Cluster: cluster, What: what}))
		return err
	}
	operator := bootv1connect.NewClusterServiceClient(s.person(t, Operator), s.url)
	wantCode(t, "the wrong role", rotate(operator, "prod", "etcd-ca"), connect.CodePermissionDenied, "admin")
	wantCode(t, "something else", rotate(admin, "prod", "machine-ca"), connect.CodeInvalidArgument, "valid: kubernetes-ca, etcd-ca")
	wantCode(t, "no such cluster", rotate(admin, "test", "etcd-ca"), connect.CodeNotFound, "")

	leaf, err := s.ca.Issue(pki.Request{CommonName: "kube-apiserver", Client: true, Validity: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	indented := func(text []byte) string { return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n      ") }
	document := fmt.Sprintf("name: outside\nmachines:\n- id: 52-54-00-00-00-09\netcd:\n  external:\n    endpoints: [\"https://192.0.2.1:2379\"]\n"+
		"    ca: |\n      %s\n    cert: |\n      %s\n    key: |\n      %s\n", indented(s.ca.CertPEM), indented(leaf.CertPEM), indented(leaf.KeyPEM))
	if _, err := admin.CreateCluster(t.Context(), connect.NewRequest(&bootv1.CreateClusterRequest{Cluster: []byte(document)})); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "someone else's etcd", rotate(admin, "outside", "etcd-ca"), connect.CodeFailedPrecondition, "whoever runs it")
	if err := rotate(admin, "outside", "kubernetes-ca"); err != nil {
		t.Error(err)
	}
}
