package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/api/client"
)

// fakeClusters is a boot service that keeps one snapshot.
type fakeClusters struct {
	bootv1connect.UnimplementedClusterServiceHandler
	snapshot *bootv1.Snapshot
	data     []byte // of it, as it is sent
	uploads  [][]byte
	restores []*bootv1.RestoreClusterRequest
	digests  []string
	plan     *bootv1.PlanRecoveryResponse
	cluster  *bootv1.Cluster
}

func (f *fakeClusters) ListSnapshots(context.Context, *connect.Request[bootv1.ListSnapshotsRequest]) (*connect.Response[bootv1.ListSnapshotsResponse], error) {
	return connect.NewResponse(&bootv1.ListSnapshotsResponse{Snapshots: []*bootv1.Snapshot{f.snapshot}}), nil
}

func (f *fakeClusters) ReadSnapshot(_ context.Context, _ *connect.Request[bootv1.ReadSnapshotRequest], out *connect.ServerStream[bootv1.SnapshotChunk]) error {
	for data := f.data; len(data) > 0; data = data[min(len(data), 1000):] {
		if err := out.Send(&bootv1.SnapshotChunk{Data: data[:min(len(data), 1000)]}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeClusters) UploadSnapshot(_ context.Context, in *connect.ClientStream[bootv1.UploadSnapshotRequest]) (*connect.Response[bootv1.UploadSnapshotResponse], error) {
	var data []byte
	for first := true; in.Receive(); first = false {
		if first != (in.Msg().GetCluster() == "prod") || len(in.Msg().GetData()) > maxPiece {
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a bad piece"))
		}
		data = append(data, in.Msg().GetData()...)
	}
	f.uploads = append(f.uploads, data)
	return connect.NewResponse(&bootv1.UploadSnapshotResponse{Snapshot: &bootv1.Snapshot{Id: "prod-20260601T130000Z", By: "upload"}}), in.Err()
}

func (f *fakeClusters) RestoreCluster(_ context.Context, r *connect.Request[bootv1.RestoreClusterRequest]) (*connect.Response[bootv1.RestoreClusterResponse], error) {
	f.restores = append(f.restores, r.Msg)
	return connect.NewResponse(&bootv1.RestoreClusterResponse{Cluster: f.cluster}), nil
}

func (f *fakeClusters) PlanRecovery(context.Context, *connect.Request[bootv1.PlanRecoveryRequest]) (*connect.Response[bootv1.PlanRecoveryResponse], error) {
	return connect.NewResponse(f.plan), nil
}

func (f *fakeClusters) RecoverCluster(_ context.Context, r *connect.Request[bootv1.RecoverClusterRequest]) (*connect.Response[bootv1.RecoverClusterResponse], error) {
	f.digests = append(f.digests, string(r.Msg.GetDigest()))
	return connect.NewResponse(&bootv1.RecoverClusterResponse{Cluster: f.cluster}), nil
}

func newFake(t *testing.T) (*fakeClusters, *client.Client) {
	t.Helper()
	data := bytes.Repeat([]byte("etcd"), 1000)
	sum := sha256.Sum256(data)
	f := &fakeClusters{
		data: data, cluster: &bootv1.Cluster{Name: "prod"},
		snapshot: &bootv1.Snapshot{Id: "prod-20260601T120000Z", Revision: 7, Sha256: sum[:], By: "schedule", Taken: timestamppb.New(time.Unix(1780315200, 0))},
		plan: &bootv1.PlanRecoveryResponse{
			Survivors: []*bootv1.Survivor{{Hostname: "prod-cp-2", Revision: 7, RaftIndex: 9}}, Silent: []string{"prod-cp-1", "prod-cp-3"},
			Loss: "prod-cp-2 goes on at revision 7; writes may be lost.", Digest: []byte("agreed"),
		},
	}
	mux := http.NewServeMux()
	mux.Handle(bootv1connect.NewClusterServiceHandler(f))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return f, &client.Client{Clusters: bootv1connect.NewClusterServiceClient(server.Client(), server.URL)}
}

// command is what a command runs in: its input, and what it printed.
func command(t *testing.T, input string) (*cobra.Command, *bytes.Buffer) {
	cmd, out := &cobra.Command{}, &bytes.Buffer{}
	cmd.SetContext(t.Context())
	cmd.SetIn(strings.NewReader(input))
	cmd.SetOut(out)
	cmd.SetErr(out)
	return cmd, out
}

func TestASnapshotIsSavedWholeOrNotAtAll(t *testing.T) {
	f, c := newFake(t)
	path := filepath.Join(t.TempDir(), "prod.db")
	if err := saveSnapshot(t.Context(), c, f.snapshot, path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || info.Size() != int64(len(f.data)) {
		t.Errorf("the file is %v, %v", info, err)
	}
	f.data = f.data[1:]
	if err := saveSnapshot(t.Context(), c, f.snapshot, path); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("half of it: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left are %v, %v", entries, err)
	}
	if again, err := os.Stat(path); err != nil || again.Size() != info.Size() {
		t.Errorf("the file before is %v, %v", again, err)
	}
}

func TestARestoreTakesAFileOrAnID(t *testing.T) {
	f, c := newFake(t)
	data := bytes.Repeat([]byte("x"), 2*maxPiece+5)
	file := filepath.Join(t.TempDir(), "prod.db")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		snapshot, input, want, err string
	}{
		{"prod-20260601T120000Z", "yes\n", "revision 7, taken 2026-06-01", ""},
		{file, "yes\n", "at a time that the file does not tell", ""},
		{file, "no\n", "", "nothing was changed"},
		{"prod-20260601T110000Z", "", "", "neither a file here nor a snapshot"},
		{"", "", "", "--snapshot is missing"},
	} {
		cmd, out := command(t, test.input)
		err := (&restoreFlags{snapshot: test.snapshot}).run(cmd, c, "prod")
		if !strings.Contains(out.String(), test.want) || err == nil != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q: %v, want %q; it printed\n%s", test.snapshot, err, test.err, out)
		}
	}
	if len(f.restores) != 2 || f.restores[0].GetSnapshot() != "prod-20260601T120000Z" || f.restores[1].GetSnapshot() != "prod-20260601T130000Z" {
		t.Errorf("restored were %v", f.restores)
	}
	if len(f.uploads) != 2 || !bytes.Equal(f.uploads[0], data) {
		t.Errorf("%d uploads", len(f.uploads))
	}
}

func TestRecoveryShowsItsCostAndAsks(t *testing.T) {
	f, c := newFake(t)
	cmd, out := command(t, "no\n")
	if err := new(renewFlags).recover(cmd, c, "prod"); err == nil || err.Error() != "nothing was changed" || len(f.digests) > 0 {
		t.Errorf("after a no: %v, %q", err, f.digests)
	}
	for _, want := range []string{"prod-cp-2  yes", "prod-cp-1  no", "never", "writes may be lost", "Go on with prod-cp-2 alone? [yes/no]"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	cmd, _ = command(t, "")
	cmd.SetOut(io.Discard)
	if err := (&renewFlags{waitFlags{yes: true}}).recover(cmd, c, "prod"); err != nil || len(f.digests) != 1 || f.digests[0] != "agreed" {
		t.Errorf("after --yes: %v, %q", err, f.digests)
	}
}

func TestWhoIsNotRenewedYet(t *testing.T) {
	voter := func(generation int32) *bootv1.EtcdState {
		return &bootv1.EtcdState{Generation: generation, Voter: true, Healthy: true}
	}
	c := &bootv1.Cluster{
		Name: "prod", EtcdGeneration: 2,
		Document: []byte("name: prod\nmachines:\n- {id: 52-54-00-00-00-01, role: control-plane}\n- {id: 52-54-00-00-00-02, role: control-plane}\n- {id: 52-54-00-00-00-03, role: control-plane}\n- {id: 52-54-00-00-00-04}\n"),
		Machines: []*bootv1.Machine{
			{Id: "52-54-00-00-00-01", Hostname: "prod-cp-1", Phase: "ready", Current: true, Etcd: voter(2)},
			{Id: "52-54-00-00-00-02", Hostname: "prod-cp-2", Phase: "ready", Current: true, Etcd: voter(1)},
			{Id: "52-54-00-00-00-03", Hostname: "prod-cp-3", Phase: "joining", WaitingFor: "a sign of life"},
			{Id: "52-54-00-00-00-04", Hostname: "prod-worker-1", Phase: "ready"},
		},
	}
	missing, err := notRenewed(c, []string{"prod-cp-3"})
	const want = "prod-cp-2 is no healthy voter of etcd yet; prod-worker-1 is ready and waits for nothing that it named"
	if got := strings.Join(missing, "; "); err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
	c.Machines[1].Etcd, c.Machines[3].Current = voter(2), true
	if missing, err := notRenewed(c, []string{"prod-cp-3"}); err != nil || len(missing) > 0 {
		t.Errorf("when all is well: %v, %v", missing, err)
	}
	if missing, err := notRenewed(c, nil); err != nil || len(missing) != 1 || !strings.Contains(missing[0], "a sign of life") {
		t.Errorf("with nobody given up: %v, %v", missing, err)
	}
	c.EtcdGeneration = 3
	if missing, err := notRenewed(c, []string{"prod-cp-3"}); err != nil || len(missing) != 2 {
		t.Errorf("of a generation that nobody runs yet: %v, %v", missing, err)
	}
}

func TestAnotherGenerationIsNoRestore(t *testing.T) {
	at := func(generation int32, snapshot string) *bootv1.Cluster {
		return &bootv1.Cluster{Name: "prod", EtcdGeneration: generation, EtcdSnapshot: snapshot}
	}
	for name, test := range map[string]struct {
		began, latest *bootv1.Cluster
		good          bool
	}{
		"the restore's own":               {at(2, "S"), at(2, "S"), true},
		"restored once more":              {at(2, "S"), at(3, "S"), true},
		"an empty one":                    {at(2, "S"), at(3, ""), false},
		"another snapshot's":              {at(2, "S"), at(3, "T"), false},
		"the recovery's own":              {at(2, ""), at(2, ""), true},
		"restored after it was recovered": {at(2, ""), at(3, "S"), false},
		"an empty one after a recovery":   {at(2, ""), at(3, ""), false},
	} {
		err := superseded(test.began, test.latest)
		if (err == nil) != test.good || err != nil && !strings.Contains(err.Error(), "gave way to generation 3 with other data") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestARenewalSettles: a node that is Ready may find only now that its Node is gone.
func TestARenewalSettles(t *testing.T) {
	var s steady
	start := time.Now()
	for _, look := range []struct {
		at         time.Duration
		well, want bool
	}{
		{0, true, false}, {25 * time.Second, true, false},
		{26 * time.Second, false, false}, {40 * time.Second, true, false}, {69 * time.Second, true, false},
		{70 * time.Second, true, true},
	} {
		if got := s.after(start.Add(look.at), look.well); got != look.want {
			t.Errorf("at %s: %t", look.at, got)
		}
	}
}

func TestLateSnapshotsAreShown(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	at := func(hours int) []*bootv1.Snapshot {
		return []*bootv1.Snapshot{{Taken: timestamppb.New(now.Add(-time.Duration(hours) * time.Hour))}}
	}
	for name, test := range map[string]struct {
		document string
		kept     []*bootv1.Snapshot
		want     string
	}{
		"in time":      {"", at(11), ""},
		"late":         {"", at(13), "13h0m0s old, though one is wanted every 6h0m0s"},
		"none yet":     {"", nil, "none is kept yet"},
		"none is due":  {"etcd: {snapshots: {every: -1h}}\n", at(500), ""},
		"a long while": {"etcd: {snapshots: {every: 300h}}\n", at(500), ""},
	} {
		c := &bootv1.Cluster{Name: "prod", Document: []byte("name: prod\nmachines:\n- id: 52-54-00-00-00-01\n" + test.document), Machines: []*bootv1.Machine{{Phase: "ready"}}}
		if got := overdue(c, test.kept, now); got == "" != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
