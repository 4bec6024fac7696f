package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/cluster"
)

func clusterSnapshotCommand(r *remote) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "snapshot [NAME]",
		Short: "Take a snapshot of a cluster's etcd, keep it at the boot service, and copy it to a file",
		Long: `Take a snapshot of a cluster's etcd.

A member that is no leader gives it. The boot service checks and keeps it; with
--file it is copied to this computer too. It holds all that the cluster knows:
keep it where nobody else can read it.`,
		Example: "  slipway cluster snapshot prod --file prod.db",
		Args:    cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			answer, err := c.Clusters.TakeSnapshot(cmd.Context(), connect.NewRequest(&bootv1.TakeSnapshotRequest{Cluster: optional(args)}))
			if err != nil {
				return err
			}
			one := answer.Msg.GetSnapshot()
			if file != "" {
				if err := saveSnapshot(cmd.Context(), c, one, file); err != nil {
					return fmt.Errorf("%w; the boot service keeps it as %s", err, one.GetId())
				}
			}
			return show(cmd.OutOrStdout(), r.output, one, func(w io.Writer) { snapshotTable(w, []*bootv1.Snapshot{one}) })
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "file to copy the snapshot to, mode 0600")
	return cmd
}

func clusterSnapshotsCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshots [NAME]",
		Short: "List the snapshots that the boot service keeps, of one cluster or of all",
		Args:  cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			answer, err := c.Clusters.ListSnapshots(cmd.Context(), connect.NewRequest(&bootv1.ListSnapshotsRequest{Cluster: optional(args)}))
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, answer.Msg, func(w io.Writer) { snapshotTable(w, answer.Msg.GetSnapshots()) })
		}),
	}
}

func snapshotTable(w io.Writer, snapshots []*bootv1.Snapshot) {
	row(w, "SNAPSHOT", "TAKEN", "SIZE", "REVISION", "BY", "SHA-256")
	for _, one := range snapshots {
		row(w, one.GetId(), one.GetTaken().AsTime().Local().Format(time.DateTime), fmt.Sprintf("%.1f MiB", float64(one.GetSize())/(1<<20)),
			one.GetRevision(), one.GetBy(), fmt.Sprintf("%.12x", one.GetSha256()))
	}
}

// saveSnapshot copies a snapshot to a file, whole and checked or not at all.
func saveSnapshot(ctx context.Context, c *client.Client, one *bootv1.Snapshot, path string) error {
	stream, err := c.Clusters.ReadSnapshot(ctx, connect.NewRequest(&bootv1.ReadSnapshotRequest{Id: one.GetId()}))
	if err != nil {
		return err
	}
	defer stream.Close()
	part, err := os.CreateTemp(filepath.Dir(path), ".snapshot-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	defer os.Remove(part.Name())
	hash := sha256.New()
	for err == nil && stream.Receive() {
		_, err = io.MultiWriter(part, hash).Write(stream.Msg().GetData())
	}
	if err := errors.Join(err, stream.Err(), part.Sync(), part.Close()); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if sum := hash.Sum(nil); string(sum) != string(one.GetSha256()) {
		return fmt.Errorf("write snapshot: what came has the SHA-256 %x and not %x", sum, one.GetSha256())
	}
	if err := os.Rename(part.Name(), path); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// maxPiece is how many bytes of a snapshot go into one message.
const maxPiece = 256 << 10

// findSnapshot returns the snapshot that a person means: a file, which is
// uploaded, or the ID of one that is kept.
func findSnapshot(ctx context.Context, c *client.Client, name, text string) (*bootv1.Snapshot, error) {
	file, err := os.Open(text)
	if err == nil {
		defer file.Close()
		return uploadSnapshot(ctx, c, name, file)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	answer, err := c.Clusters.ListSnapshots(ctx, connect.NewRequest(&bootv1.ListSnapshotsRequest{}))
	if err != nil {
		return nil, err
	}
	for _, one := range answer.Msg.GetSnapshots() {
		if one.GetId() == text {
			return one, nil
		}
	}
	return nil, fmt.Errorf("%w: --snapshot %s is neither a file here nor a snapshot that the boot service keeps: see slipway cluster snapshots", errUsage, text)
}

func uploadSnapshot(ctx context.Context, c *client.Client, name string, from io.Reader) (*bootv1.Snapshot, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // gives up an upload that could not be read to its end
	stream := c.Clusters.UploadSnapshot(ctx)
	message := &bootv1.UploadSnapshotRequest{Cluster: name}
	for piece := make([]byte, maxPiece); ; {
		n, err := io.ReadFull(from, piece)
		message.Data = piece[:n]
		if sent := stream.Send(message); sent != nil {
			break // the answer says why
		}
		message = &bootv1.UploadSnapshotRequest{}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return answer.Msg.GetSnapshot(), nil
}

// overdue says, for people, that a cluster's snapshots do not come as often as
// its document wants; empty: they do.
func overdue(c *bootv1.Cluster, kept []*bootv1.Snapshot, now time.Time) string {
	doc, err := cluster.Parse(c.GetDocument(), c.GetName())
	if err != nil || doc.Etcd.Snapshots.Every < 0 || doc.Etcd.External != nil || len(notReady(c)) == len(c.GetMachines()) {
		return ""
	}
	every := doc.Etcd.Snapshots.Every
	if len(kept) == 0 {
		return "Snapshots: none is kept yet. The first is taken within a minute or two of etcd's start; if it stays so, the boot service's log says why"
	}
	newest := kept[len(kept)-1].GetTaken().AsTime()
	if age := now.Sub(newest); age > 2*every {
		return fmt.Sprintf("Snapshots: the newest is %v old, though one is wanted every %v: the boot service's log says why", age.Round(time.Second), every)
	}
	return ""
}
