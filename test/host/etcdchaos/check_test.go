package etcdchaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// check is what must hold when all members are healthy again and no client asks.
func (r *round) check() {
	revision := r.readBack()
	r.checkWrites(revision)
	r.checkHistories()
	r.checkHashes(revision)
}

// readBack reads all keys of all rounds, at whatever member, and notes it in
// the history: what was ever acknowledged has to fit to it. It returns the
// revision at which the last of them was written.
func (r *round) readBack() int64 {
	var last int64
	r.c.until("read all keys", func(ctx context.Context) error {
		began := r.h.now()
		answer, err := r.c.any(nil).Get(ctx, "chaos/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		ended := r.h.now()
		for _, kv := range answer.Kvs {
			last = max(last, kv.ModRevision)
			r.h.add(operation{
				client: clients, member: "any", kind: get, key: string(kv.Key), got: string(kv.Value),
				invoked: began, ended: ended, revision: answer.Header.Revision,
			})
		}
		return nil
	})
	return last
}

// write is a write as etcd remembers it.
type write struct{ key, value string }

// checkWrites looks in etcd's own memory of the past, which nothing here
// compacts, for each write that was ever acknowledged, at its revision. It asks
// one member, another each time: that all hold the same is checkHashes's word.
func (r *round) checkWrites(last int64) {
	t := r.t
	t.Helper()
	m := r.c.running()[r.number%len(r.c.running())]
	remembered, err := m.past(t.Context(), last)
	must(t, err)
	for key, operations := range r.h.all() {
		for _, o := range operations {
			if o.wrote() && remembered[o.revision] != (write{o.key, o.value}) {
				t.Fatalf("lost: %s\n%s has %v at its revision; operations on %s around it:\n%s", o, m.name, remembered[o.revision], key, around(operations, o))
			}
		}
	}
}

// past is every write up to a revision, by revision, as the member itself has them.
func (m *member) past(ctx context.Context, last int64) (map[int64]write, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	past := map[int64]write{}
	for answer := range m.client.Load().Watch(ctx, "chaos/", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := answer.Err(); err != nil {
			return nil, fmt.Errorf("watch %s: %w", m.name, err)
		}
		for _, e := range answer.Events {
			past[e.Kv.ModRevision] = write{string(e.Kv.Key), string(e.Kv.Value)}
			if e.Kv.ModRevision >= last {
				return past, nil
			}
		}
	}
	return nil, fmt.Errorf("watch %s: it does not come to revision %d: %w", m.name, last, context.Cause(ctx))
}

// checkHistories checks every key of every round: a write of unknown outcome
// may have come late.
func (r *round) checkHistories() {
	r.t.Helper()
	all := r.h.all()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if !linearizable(all[key]) {
			wrong := misfit(all[key])
			r.t.Fatalf("operations on %s cannot have happened in any order, because of:\n%s\naround it:\n%s", key, wrong, around(all[key], wrong))
		}
	}
}

// checkHashes compares what the members hold, all their history included.
func (r *round) checkHashes(revision int64) {
	r.t.Helper()
	hashes := map[string]string{}
	for _, m := range r.c.running() {
		ctx, cancel := context.WithTimeout(r.t.Context(), patience)
		answer, err := m.client.Load().HashKV(ctx, m.url(2379), revision)
		cancel()
		must(r.t, err)
		hashes[m.name] = fmt.Sprintf("%08x at revision %d, compacted at %d", answer.Hash, revision, answer.CompactRevision)
	}
	if distinct := slices.Compact(slices.Sorted(maps.Values(hashes))); len(distinct) > 1 {
		r.t.Fatalf("members hold different data: %v", hashes)
	}
}

// progress waits until clients have had so many writes acknowledged that they
// asked for from now on.
func (r *round) progress(writes int) {
	r.t.Helper()
	since := r.h.now()
	r.c.until(fmt.Sprintf("%d writes are acknowledged", writes), func(context.Context) error {
		if n := r.h.acknowledged(since); n < writes {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
}

// firstWrite returns when a write through one of the members is acknowledged
// that was asked for after its call.
func (c *cluster) firstWrite(through []*member) time.Time {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	acknowledged := make(chan time.Time, 1)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		for _, m := range through {
			go func() {
				if _, err := m.client.Load().Put(ctx, "failover", "x"); err == nil {
					select {
					case acknowledged <- time.Now():
					default:
					}
				}
			}()
		}
		select {
		case at := <-acknowledged:
			return at
		case <-ctx.Done():
			c.t.Fatal("after the leader's death no write is acknowledged")
		case <-again.C:
		}
	}
}

// failover kills the leader and returns how long writes then waited.
func (c *cluster) failover(leader *member) time.Duration {
	c.t.Helper()
	through := c.others(leader)
	killed := leader.kill()
	return c.firstWrite(through).Sub(killed)
}
