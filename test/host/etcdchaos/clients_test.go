package etcdchaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	clients = 6
	keys    = 4 // of a round
	// pace is a client's pause between requests, so that the computer has
	// time for something else.
	pace = 15 * time.Millisecond
	// timeout is a client's. A request that passes it may still be executed.
	timeout = time.Second
)

// crowd is the clients of a round.
type crowd struct {
	h       *history
	round   int
	members []*member
	stop    chan struct{}
	ended   sync.WaitGroup
}

// newCrowd lets clients loose on the members.
func newCrowd(h *history, round int, members []*member, rng *rand.Rand) *crowd {
	c := &crowd{h: h, round: round, members: members, stop: make(chan struct{})}
	for id := range clients {
		one := &client{crowd: c, id: id, rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), last: map[string]string{}}
		c.ended.Go(one.run)
	}
	return c
}

// end returns when every client has had its last answer.
func (c *crowd) end() {
	close(c.stop)
	c.ended.Wait()
}

func (c *crowd) key(n int) string { return fmt.Sprintf("chaos/%03d/%d", c.round, n) }

// client asks for one thing after the other. One in two stays with its member
// whatever it says, since a member that is cut off must not answer wrongly; the
// others turn to another when it fails.
type client struct {
	*crowd
	id, asked int
	turned    int
	rng       *rand.Rand
	last      map[string]string // by key, what it saw last
}

func (c *client) run() {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
			c.ask()
		}
	}
}

func (c *client) ask() {
	m := c.members[(c.id+c.turned)%len(c.members)]
	conn := m.client.Load()
	if conn == nil {
		c.turned++
		return
	}
	o := c.next()
	o.member, o.invoked = m.name, c.h.now()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	o.execute(ctx, conn)
	cancel()
	o.ended = c.h.now()
	c.h.add(o)
	switch {
	case o.err != nil && c.id%2 == 1:
		c.turned++
	case o.wrote():
		c.last[o.key] = o.value
	case o.err == nil:
		c.last[o.key] = o.got
	}
}

// next is what the client asks next: three writes for two reads, half of the
// writes over the value that it knows.
func (c *client) next() operation {
	c.asked++
	key := c.key(c.rng.IntN(keys))
	o := operation{client: c.id, key: key, kind: get}
	if n := c.rng.IntN(10); n < 6 {
		o.kind, o.value = put, fmt.Sprintf("%d.%d.%d", c.round, c.id, c.asked)
		if n < 3 {
			o.kind, o.expect = cas, c.last[key]
		}
	}
	return o
}

// execute asks a member and notes the answer.
func (o *operation) execute(ctx context.Context, conn *clientv3.Client) {
	txn := conn.Txn(ctx)
	switch o.kind {
	case put:
		txn = txn.Then(clientv3.OpPut(o.key, o.value))
	case get:
		txn = txn.Then(clientv3.OpGet(o.key))
	case cas:
		known := clientv3.Compare(clientv3.Value(o.key), "=", o.expect)
		if o.expect == "" {
			known = clientv3.Compare(clientv3.CreateRevision(o.key), "=", 0)
		}
		txn = txn.If(known).Then(clientv3.OpPut(o.key, o.value)).Else(clientv3.OpGet(o.key))
	}
	answer, err := txn.Commit()
	if err != nil {
		o.err = err
		return
	}
	o.revision = answer.Header.Revision
	o.swapped = o.kind == cas && answer.Succeeded
	if got := answer.Responses[0].GetResponseRange(); got != nil && len(got.Kvs) > 0 {
		o.got = string(got.Kvs[0].Value)
	}
}
