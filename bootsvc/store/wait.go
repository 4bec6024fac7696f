package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// Watched is a table that can be waited for.
type Watched interface{ watched() string }

// WaitFor blocks until check says done or fails, or ctx ends. It calls check at
// once, and again whenever a document has changed in one of the tables, whose
// id matters. Both are called by one goroutine at a time.
func (s *Store) WaitFor(ctx context.Context, matters func(id string) bool, check func() (done bool, err error), tables ...Watched) error {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	changed := make(chan string)
	for _, table := range tables {
		group.Go(func() error { return s.follow(ctx, table.watched(), changed) })
	}
	err := untilDone(ctx, changed, matters, check)
	cancel()
	if broken := group.Wait(); broken != nil && !errors.Is(broken, context.Canceled) && errors.Is(err, context.Canceled) {
		return broken
	}
	return err
}

// untilDone checks after each change that matters. The empty id is a table
// whose changes are seen from now on.
func untilDone(ctx context.Context, changed <-chan string, matters func(string) bool, check func() (bool, error)) error {
	for {
		select {
		case id := <-changed:
			if id != "" && !matters(id) {
				continue
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if done, err := check(); done || err != nil {
			return err
		}
	}
}

// follow sends the ids of what changes below a prefix, and first the empty one.
func (s *Store) follow(ctx context.Context, prefix string, changed chan<- string) error {
	for answer := range s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
		if err := answer.Err(); err != nil {
			return fmt.Errorf("watch %s: %w", prefix, err)
		}
		ids := []string{""}
		if !answer.Created {
			ids = nil
		}
		for _, event := range answer.Events {
			ids = append(ids, strings.TrimPrefix(string(event.Kv.Key), prefix))
		}
		for _, id := range ids {
			select {
			case changed <- id:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("watch %s: it ended", prefix)
}
