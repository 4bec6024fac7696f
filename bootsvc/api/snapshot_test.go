package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/enroll"
	"slipway/bootsvc/snapshot"
	"slipway/configs/machine"
	"slipway/controlplane/pki"
)

// etcdFile is a snapshot as etcd writes them, of a cluster with this identity.
func etcdFile(t *testing.T, name, id string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		keys, err := tx.CreateBucket([]byte("key"))
		if err != nil {
			return err
		}
		put := func(revision uint64, key string, value []byte) {
			at := append(binary.BigEndian.AppendUint64(nil, revision), '_', 0, 0, 0, 0, 0, 0, 0, 0)
			text, _ := proto.Marshal(&mvccpb.KeyValue{Key: []byte(key), Value: value})
			err = errors.Join(err, keys.Put(at, text))
		}
		put(2, "/slipway/cluster", fmt.Appendf(nil, `{"name":%q,"id":%q}`, name, id))
		put(7, "/registry/configmaps/default/big", bytes.Repeat([]byte("x"), 3*maxChunk))
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// upload sends a file in pieces.
func upload(t *testing.T, c bootv1connect.ClusterServiceClient, cluster string, data []byte) (*bootv1.Snapshot, error) {
	t.Helper()
	stream := c.UploadSnapshot(t.Context())
	for first := true; first || len(data) > 0; first = false {
		size := min(len(data), maxChunk)
		if stream.Send(&bootv1.UploadSnapshotRequest{Cluster: cluster, Data: data[:size]}) != nil {
			break // the answer says why
		}
		cluster, data = "", data[size:]
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return answer.Msg.GetSnapshot(), nil
}

// download reads a stream of pieces to its end.
func download(stream *connect.ServerStreamForClient[bootv1.SnapshotChunk], err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var data []byte
	for stream.Receive() {
		if len(stream.Msg().GetData()) > maxChunk {
			return nil, errors.New("a piece is too large")
		}
		data = append(data, stream.Msg().GetData()...)
	}
	return data, stream.Err()
}

// ready is a site with a cluster, prod, of one machine that has its config.
func ready(t *testing.T) (*site, bootv1connect.ClusterServiceClient, bootv1connect.MachineServiceClient) {
	t.Helper()
	s := start(t, enroll.Any())
	m := makeMachine(t)
	answer, err := s.enrol(t, m)
	if err != nil {
		t.Fatal(err)
	}
	admin := bootv1connect.NewClusterServiceClient(s.person(t, Admin), s.url)
	document := []byte("name: prod\nmachines:\n- id: " + machineID + "\n")
	if _, err := admin.CreateCluster(t.Context(), connect.NewRequest(&bootv1.CreateClusterRequest{Cluster: document})); err != nil {
		t.Fatal(err)
	}
	return s, admin, s.enrolled(t, m, answer.GetCertificate())
}

func fetchConfig(t *testing.T, c bootv1connect.MachineServiceClient) *machine.Config {
	t.Helper()
	answer, err := c.FetchConfig(t.Context(), connect.NewRequest(&bootv1.FetchConfigRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	config, err := machine.Parse(answer.Msg.GetConfig(), "config")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestASnapshotGoesUpAndComesBack(t *testing.T) {
	s, admin, _ := ready(t)
	data := etcdFile(t, "prod", "ab12")
	kept, err := upload(t, admin, "", data)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if kept.GetCluster() != "prod" || kept.GetBy() != "upload" || kept.GetRevision() != 7 || !bytes.Equal(kept.GetSha256(), sum[:]) || kept.GetSize() != int64(len(data)) {
		t.Errorf("kept as %v", kept)
	}
	list, err := bootv1connect.NewClusterServiceClient(s.person(t, Reader), s.url).ListSnapshots(t.Context(), connect.NewRequest(&bootv1.ListSnapshotsRequest{}))
	if err != nil || len(list.Msg.GetSnapshots()) != 1 || !proto.Equal(list.Msg.GetSnapshots()[0], kept) {
		t.Errorf("the list is %v, %v", list, err)
	}
	backup := bootv1connect.NewClusterServiceClient(s.person(t, Backup), s.url)
	got, err := download(backup.ReadSnapshot(t.Context(), connect.NewRequest(&bootv1.ReadSnapshotRequest{Id: kept.GetId()})))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	_, err = download(backup.ReadSnapshot(t.Context(), connect.NewRequest(&bootv1.ReadSnapshotRequest{Id: "../../../etc/passwd"})))
	wantCode(t, "another file", err, connect.CodeNotFound, "no such snapshot")
	_, err = upload(t, backup, "prod", data)
	wantCode(t, "an upload by the wrong role", err, connect.CodePermissionDenied, "needs the role admin")
}

func TestBadUploads(t *testing.T) {
	_, admin, _ := ready(t)
	data := etcdFile(t, "prod", "ab12")
	_, err := upload(t, admin, "test", data)
	wantCode(t, "another cluster", err, connect.CodeNotFound, "not found")
	_, err = upload(t, admin, "prod", data[:len(data)-100])
	wantCode(t, "half of it", err, connect.CodeInvalidArgument, "cut off")
	_, err = upload(t, admin, "prod", nil)
	wantCode(t, "nothing", err, connect.CodeInvalidArgument, "not a whole snapshot")
	_, err = admin.UploadSnapshot(t.Context()).CloseAndReceive()
	wantCode(t, "no message", err, connect.CodeInvalidArgument, "no first message")
	list, err := admin.ListSnapshots(t.Context(), connect.NewRequest(&bootv1.ListSnapshotsRequest{}))
	if err != nil || len(list.Msg.GetSnapshots()) > 0 {
		t.Errorf("kept are %v, %v", list, err)
	}
}

func TestAPersonTakesASnapshot(t *testing.T) {
	s, admin, _ := ready(t)
	s.server.Take = func(_ context.Context, o snapshot.Origin, members []snapshot.Member) (snapshot.Snapshot, error) {
		if len(members) != 1 || members[0].Hostname != "prod-cp-1" || members[0].Address.String() != "127.0.0.1" {
			t.Errorf("the members are %v", members)
		}
		return snapshot.Snapshot{ID: "prod-20260601T120000Z", Cluster: o.Cluster, By: o.By}, nil
	}
	answer, err := admin.TakeSnapshot(t.Context(), connect.NewRequest(&bootv1.TakeSnapshotRequest{}))
	if err != nil || answer.Msg.GetSnapshot().GetBy() != "ann" || answer.Msg.GetSnapshot().GetCluster() != "prod" {
		t.Errorf("%v, %v", answer, err)
	}
	s.server.Take = func(context.Context, snapshot.Origin, []snapshot.Member) (snapshot.Snapshot, error) {
		return snapshot.Snapshot{}, fmt.Errorf("%w: prod-cp-1: connection refused", snapshot.ErrNoMember)
	}
	_, err = admin.TakeSnapshot(t.Context(), connect.NewRequest(&bootv1.TakeSnapshotRequest{Cluster: "prod"}))
	wantCode(t, "nobody answers", err, connect.CodeFailedPrecondition, "prod-cp-1: connection refused")
}

func TestASnapshotIsForTheMachineThatRestores(t *testing.T) {
	s, admin, node := ready(t)
	var data []byte
	restore := func(id string, force bool) (*bootv1.Snapshot, error) {
		data = etcdFile(t, "prod", id)
		kept, err := upload(t, admin, "", data)
		if err != nil {
			t.Fatal(err)
		}
		_, err = admin.RestoreCluster(t.Context(), connect.NewRequest(&bootv1.RestoreClusterRequest{Snapshot: kept.GetId(), Force: force}))
		return kept, err
	}
	fetch := func(of *bootv1.Snapshot) ([]byte, error) {
		return download(node.FetchSnapshot(t.Context(), connect.NewRequest(&bootv1.FetchSnapshotRequest{Sha256: of.GetSha256()})))
	}
	if config := fetchConfig(t, node); config.Etcd.Bootstrap == nil {
		t.Fatal("the machine does not start etcd")
	}
	other, err := restore("ab12", false)
	wantCode(t, "another cluster's", err, connect.CodeFailedPrecondition, "snapshot is of another cluster")
	_, err = fetch(other)
	wantCode(t, "a machine that starts from nothing", err, connect.CodeFailedPrecondition, "no leave")
	kept, err := restore("cd34", true)
	if err != nil {
		t.Fatal(err)
	}
	config := fetchConfig(t, node)
	if config.Etcd.Generation != 2 || config.Etcd.Bootstrap == nil || config.Etcd.Bootstrap.Snapshot != hex.EncodeToString(kept.GetSha256()) {
		t.Errorf("the config says %+v", config.Etcd)
	}
	if got, err := fetch(kept); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came, %v", len(got), err)
	}
	_, err = fetch(other)
	wantCode(t, "one that it is not to restore", err, connect.CodeNotFound, "no such snapshot")
	_, err = admin.RestoreCluster(t.Context(), connect.NewRequest(&bootv1.RestoreClusterRequest{Snapshot: "prod-20260601T120000Z"}))
	wantCode(t, "one that is not kept", err, connect.CodeNotFound, "slipway cluster snapshots")
	stranger := s.as(t, keyPair(t, s.ca, pki.Request{CommonName: machineID, Organizations: []string{string(Machine)}, Client: true}))
	_, err = download(bootv1connect.NewMachineServiceClient(stranger, s.url).FetchSnapshot(t.Context(), connect.NewRequest(&bootv1.FetchSnapshotRequest{Sha256: kept.GetSha256()})))
	wantCode(t, "another key", err, connect.CodePermissionDenied, "does not speak")
}

// TestOnlyARestoreKeepsAScheduledSnapshotForGood: one that is refused leaves it
// to be thinned out.
func TestOnlyARestoreKeepsAScheduledSnapshotForGood(t *testing.T) {
	s, admin, node := ready(t)
	fetchConfig(t, node) // which starts its etcd
	one, err := s.server.Snapshots.Keep(snapshot.Origin{Cluster: "prod", By: "schedule", Scheduled: true}, bytes.NewReader(etcdFile(t, "prod", "ab12")))
	if err != nil {
		t.Fatal(err)
	}
	for _, force := range []bool{false, true} {
		_, err := admin.RestoreCluster(t.Context(), connect.NewRequest(&bootv1.RestoreClusterRequest{Snapshot: one.ID, Force: force}))
		kept, lost := s.server.Snapshots.Get(one.ID)
		if lost != nil || (err == nil) != force || kept.Scheduled != (err != nil) {
			t.Errorf("forced: %v: the restore says %v; scheduled: %v, %v", force, err, kept.Scheduled, lost)
		}
	}
}
