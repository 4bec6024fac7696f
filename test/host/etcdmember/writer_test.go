package etcdmember

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// mostSilence is how long members may take no write while one of them is off: with
// the slowest of their clocks they ask for an election after 10 to 20 s, a write at
// one without a leader is given up after 5, and one that starts is given as many.
// It tells an outage from a pause. Seen on two cores with four times as much to do:
// 0.1 to 5.0 s.
const mostSilence = 30 * time.Second

// writer writes all the time, at whichever machine's socket takes it: as much as
// API servers do that share a cluster. What was acknowledged it remembers.
type writer struct {
	client *clientv3.Client
	end    func()
	ended  chan struct{}

	mu      sync.Mutex
	taken   []string // the keys; each is its own value
	last    time.Time
	silence time.Duration // the longest between two acknowledged writes
}

// write begins to write at some machines, until the test ends or check is called.
func write(t *testing.T, nodes ...*node) *writer {
	t.Helper()
	var sockets []string
	for _, n := range nodes {
		sockets = append(sockets, "unix://"+n.paths.Clients)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: sockets, Logger: zap.NewNop()})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{client: client, end: cancel, ended: make(chan struct{}), last: time.Now()}
	t.Cleanup(func() { w.stop(); client.Close() })
	go w.run(ctx)
	return w
}

func (w *writer) run(ctx context.Context) {
	defer close(w.ended)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprintf("written/%06d", i)
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		if _, err := w.client.Put(once, key, key); err == nil {
			w.took(key)
		}
		cancel()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (w *writer) took(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.silence, w.last = max(w.silence, now.Sub(w.last)), now
	w.taken = append(w.taken, key)
}

// count is how many writes were acknowledged.
func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.taken)
}

func (w *writer) stop() {
	w.end()
	<-w.ended
}

// check ends the writing: what was acknowledged is there, and never were the
// members silent for too long.
func (w *writer) check(n *node) {
	n.t.Helper()
	w.stop()
	client := n.client()
	defer client.Close()
	answer, err := client.Get(n.t.Context(), "written/", clientv3.WithPrefix())
	must(n.t, err)
	found := map[string]string{}
	for _, kv := range answer.Kvs {
		found[string(kv.Key)] = string(kv.Value)
	}
	n.t.Logf("%d writes were acknowledged, %d are there; no write for %s at most", len(w.taken), len(found), w.silence.Round(time.Millisecond))
	for _, key := range w.taken {
		if found[key] != key {
			n.t.Errorf("%s was acknowledged, and is %q", key, found[key])
		}
	}
	if w.silence > mostSilence {
		n.t.Errorf("no write was taken for %s", w.silence)
	}
}
