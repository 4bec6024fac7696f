package vip

import (
	"context"
	"time"

	"slipway/nodeinit/apiproxy"
)

// The priorities. 255 is for whom the address belongs to, which is nobody.
const (
	Ready   = 200 // its API server is ready
	Serving = 100 // it answers, though etcd does not: people still reach something that can say so
	taking  = 1   // it takes connections and does not answer in time: hung, or very busy
	out     = 0
)

// answerWithin is how long an API server may take to answer. One whose etcd is
// gone finds that out after 4 s, and where the processor is emulated after 10 s, until
// when it counts as slow (controlplane/kube, costArgs).
const answerWithin = 5 * time.Second

// agreeing is how many looks in a row it takes to become worse: one may be late.
const agreeing = 2

// NewLook returns what looks at this machine's API server, as Main does.
func NewLook() func(context.Context) uint8 { return newLook(local, caFile) }

// newLook returns what looks at the API server at addr: its priority. One that
// was ready is only asked whether it still is. Once it is not, the next look
// finds out what it can still do; it takes that one to agree anyway.
func newLook(addr, caFile string) func(context.Context) uint8 {
	isReady, _ := apiproxy.NewProber(caFile, apiproxy.ReadyPath, answerWithin)(addr)
	isServing, _ := apiproxy.NewProber(caFile, "/livez?exclude=etcd", answerWithin)(addr)
	return looker(isReady, isServing)
}

func looker(isReady, isServing func(context.Context) apiproxy.Result) func(context.Context) uint8 {
	well := false
	return func(ctx context.Context) uint8 {
		if well {
			if well = isReady(ctx) == apiproxy.OK; well {
				return Ready
			}
			return out
		}
		late := make(chan apiproxy.Result, 1)
		go func() { late <- isServing(ctx) }() // ends within answerWithin
		first := isReady(ctx)
		well = first == apiproxy.OK
		return priority(first, <-late)
	}
}

// priority is what /readyz and /livez without etcd come to.
func priority(isReady, isServing apiproxy.Result) uint8 {
	switch {
	case isReady == apiproxy.OK:
		return Ready
	case isServing == apiproxy.OK:
		return Serving
	case isServing == apiproxy.Slow:
		return taking
	}
	return out
}

// opinion is what the looks so far come to. Better is believed at once, worse
// when it has been seen often enough.
type opinion struct {
	priority uint8
	worse    int // looks in a row that were worse
}

func (o opinion) look(seen uint8) opinion {
	if seen >= o.priority {
		return opinion{priority: seen}
	}
	if o.worse++; o.worse >= agreeing {
		return opinion{priority: seen}
	}
	return o
}
