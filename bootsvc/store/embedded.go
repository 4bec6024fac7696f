package store

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"
)

// The embedded member's clock. It is alone: nobody has to hear its heartbeat,
// and a short election makes it ready sooner.
const (
	tickMs     = 50
	electionMs = 250
)

// maxTxnOps bounds the keys of one transaction: claiming the machines of a
// cluster takes two for each of them.
const maxTxnOps = 2048

// embed starts a single etcd member in this process. It listens nowhere: the
// client calls it directly, so no other process can reach the state.
func (s *Store) embed(ctx context.Context, c Config) error {
	if err := makePrivate(c.Dir); err != nil {
		return err
	}
	lock, err := lockFolder(c.Dir)
	if err != nil {
		return err
	}
	member, err := startMember(ctx, c)
	if err != nil {
		lock.Close()
		return fmt.Errorf("start the embedded etcd in %s: %w", c.Dir, err)
	}
	s.client, s.failed = v3client.New(member.Server), member.Err()
	s.stop = func() {
		member.Close()
		lock.Close()
	}
	return nil
}

func startMember(ctx context.Context, c Config) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Dir = c.Dir
	config.Name = "slipway"
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.ListenPeerUrls, config.ListenClientUrls = nil, nil
	config.MaxTxnOps = maxTxnOps
	config.TickMs, config.ElectionMs = tickMs, electionMs
	config.AutoCompactionMode, config.AutoCompactionRetention = embed.CompactorModeRevision, "1000"
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(c.Log))
	member, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-member.Server.ReadyNotify():
		return member, nil
	case err = <-member.Err():
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	member.Close()
	return nil, err
}

// lockFolder makes this process the folder's only user until the lock is
// closed. Without it a second member would wait for the first without a word.
func lockFolder(dir string) (io.Closer, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock data folder %s: %w: another slipway serve uses it; stop that one, or name another --data-dir", dir, err)
	}
	return lock, nil
}

// makePrivate makes a folder that only its owner may enter.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close data folder %s to others: %w", filepath.Clean(dir), err)
	}
	return nil
}
