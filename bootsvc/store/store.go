// Package store keeps the boot service's state in etcd, always through the
// etcd client: by default a single member embedded in this process, or an etcd
// cluster that several boot services share. What is kept is typed tables of
// JSON documents; a table of secrets is encrypted at rest.
//
// There is one way to change anything: Atomically, a compare-and-swap over all
// keys that were read, repeated when another writer was faster. The package
// knows nothing of machines or clusters. The rooms inventory, enroll, lease and
// the composition in bootsvc call it.
package store

import (
	"context"
	"crypto/cipher"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrNotFound says that a table holds nothing under an id.
var ErrNotFound = errors.New("not found")

// startTimeout is how long the store may take to answer its first request.
const startTimeout = 30 * time.Second

// root is the first part of every key, so that an etcd cluster may be shared.
const root = "/slipway/"

// Config says where the state is. Dir or Endpoints must be set.
type Config struct {
	Dir       string      // of the embedded member's data; made when missing
	Endpoints []string    // of an etcd cluster, used instead of the embedded member
	TLS       *tls.Config // for Endpoints
	KeyFile   string      // of the key that encrypts secrets; made when missing
	Log       *slog.Logger
}

// Store is an open store. Its methods may be called concurrently.
type Store struct {
	client *clientv3.Client
	stop   func()       // stops the embedded member; nil without one
	failed <-chan error // the embedded member's end; nil without one
	seal   cipher.AEAD
}

// Open opens the store and blocks until it answers, at most 30 s. The caller
// closes it.
func Open(ctx context.Context, c Config) (*Store, error) {
	seal, err := loadKey(c.KeyFile)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %v", startTimeout))
	defer cancel()
	s := &Store{seal: seal}
	if len(c.Endpoints) > 0 {
		err = s.dial(c)
	} else {
		err = s.embed(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	if err := s.checkKey(ctx, c.KeyFile); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// dial uses an etcd cluster that others run.
func (s *Store) dial(c Config) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		Logger: zapTo(c.Log),
	})
	if err != nil {
		return fmt.Errorf("connect to etcd at %v: %w", c.Endpoints, err)
	}
	s.client = client
	return nil
}

// Close stops using the store, and stops the embedded member. Every call that
// still waits returns an error.
func (s *Store) Close() {
	s.client.Close()
	if s.stop != nil {
		s.stop()
	}
}

// Run blocks until ctx ends, or the embedded member fails: the disk is full, or
// broken.
func (s *Store) Run(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return fmt.Errorf("the embedded etcd ended: %w", err)
	case <-ctx.Done():
		return nil
	}
}

// checkKey refuses a key file that does not belong to the state: a service
// that cannot read its secrets must not start making new ones.
func (s *Store) checkKey(ctx context.Context, file string) error {
	const want = "slipway"
	marks := SealedTable[string](s, "key-check")
	err := s.Atomically(ctx, func(tx *Tx) error {
		_, err := marks.Load(tx, "mark")
		if errors.Is(err, ErrNotFound) {
			return marks.Save(tx, "mark", want)
		}
		return err
	})
	switch {
	case errors.Is(err, errUnseal):
		return fmt.Errorf("open the store: the key in %s is not the one its secrets were encrypted with; give that one with --key-file", file)
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("open the store: %w (is etcd running and reachable?)", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("open the store: %w", err)
	}
	return nil
}
