package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/nodeinit/api/nodev1"
)

func etcdSnapshotCommand(r *etcdRemote) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "snapshot --file FILE [NODE]", Short: "Take a snapshot of etcd, to a file",
		Long: `Take a snapshot of etcd, to a file.

The file is checked against the hash at its end before it gets its name, and is
what slipway cluster restore and etcd's own tools take. To have the boot service
keep one, see slipway cluster snapshot.`,
		Example: `  slipway etcd snapshot --file etcd.db`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := r.nodes(cmd.Context(), args)
			if err != nil {
				return err
			}
			bytes, err := snapshotFirst(cmd.Context(), nodes, file)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s, %s, checked\n", file, megabytes(bytes))
			return err
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file to write, mode 0600: it holds the cluster's Secrets")
	_ = cmd.MarkFlagRequired("file")
	return cmd
}

// snapshotFirst takes a snapshot from the first node that gives one whole.
func snapshotFirst(ctx context.Context, nodes []etcdNode, file string) (int64, error) {
	var errs []error
	for _, n := range nodes {
		size, err := snapshotTo(ctx, n, file)
		if err == nil {
			return size, nil
		}
		errs = append(errs, nodeError(n.name, err))
	}
	return 0, errors.Join(errs...)
}

// snapshotTo writes one node's snapshot; the file is there whole or not at all.
func snapshotTo(ctx context.Context, n etcdNode, file string) (size int64, err error) {
	stream, err := n.etcd.Snapshot(ctx, connect.NewRequest(&nodev1.EtcdSnapshotRequest{}))
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	temp, err := os.CreateTemp(filepath.Dir(file), ".snapshot-*")
	if err != nil {
		return 0, fmt.Errorf("write snapshot: %w", err)
	}
	defer os.Remove(temp.Name()) // fails once it has its name
	defer temp.Close()
	for stream.Receive() {
		n, err := temp.Write(stream.Msg().GetData())
		size += int64(n)
		if err != nil {
			return 0, fmt.Errorf("write snapshot: %w", err)
		}
	}
	if err := stream.Err(); err != nil {
		return 0, err
	}
	if err := checkSnapshot(temp, size); err != nil {
		return 0, err
	}
	if err := errors.Join(temp.Sync(), os.Rename(temp.Name(), file)); err != nil {
		return 0, fmt.Errorf("write snapshot: %w", err)
	}
	return size, nil
}

// errBroken says that a snapshot is not what the member sent.
var errBroken = errors.New("the snapshot is broken: its last 32 bytes are not the SHA-256 of the others; nothing was kept, take it again")

// checkSnapshot compares the hash at the snapshot's end with what is before it.
func checkSnapshot(f io.ReadSeeker, size int64) error {
	if size <= sha256.Size {
		return errBroken
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("check snapshot: %w", err)
	}
	hash, sum := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(hash, f, size-sha256.Size); err != nil {
		return fmt.Errorf("check snapshot: %w", err)
	}
	if _, err := io.ReadFull(f, sum); err != nil {
		return fmt.Errorf("check snapshot: %w", err)
	}
	if string(hash.Sum(nil)) != string(sum) {
		return errBroken
	}
	return nil
}
