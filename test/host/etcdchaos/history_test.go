package etcdchaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// kind is what a client asks for.
type kind string

const (
	put kind = "put"
	get kind = "get"
	cas kind = "cas" // put if the key has the value expected, else get
)

// operation is one request and what came of it. Values are written once each,
// by one operation; a key without a value has "".
type operation struct {
	client         int
	member         string
	kind           kind
	key            string
	value, expect  string // what is written; cas: only over this
	invoked, ended time.Duration

	// err is why the outcome is not known: a write may have happened, or may
	// happen later.
	err      error
	swapped  bool   // cas
	got      string // of a get, or of a cas that did not swap
	revision int64  // of the store, with the answer
}

// wrote tells that the operation is a write that was acknowledged.
func (o operation) wrote() bool { return o.err == nil && (o.kind == put || o.swapped) }

// saw is the value that the operation proves to have been there.
func (o operation) saw() string {
	switch {
	case o.err != nil || o.kind == put:
		return ""
	case o.swapped:
		return o.expect
	}
	return o.got
}

func (o operation) String() string {
	outcome := fmt.Sprintf("got %q", o.got)
	if o.err != nil {
		outcome = "unknown: " + o.err.Error()
	} else if o.wrote() {
		outcome = "written"
	}
	return fmt.Sprintf("%10.3f %10.3f client %d at %s: %s %s value %q expecting %q: %s (revision %d)",
		o.invoked.Seconds(), o.ended.Seconds(), o.client, o.member, o.kind, o.key, o.value, o.expect, outcome, o.revision)
}

// history is all that clients did, in the order in which it ended.
type history struct {
	began time.Time
	mu    sync.Mutex
	done  []operation
}

func newHistory() *history { return &history{began: time.Now()} }

// now is the time on the history's clock, in this process's only.
func (h *history) now() time.Duration { return time.Since(h.began) }

func (h *history) add(o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, o)
}

// all is a copy of the operations, by key.
func (h *history) all() map[string][]operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys := map[string][]operation{}
	for _, o := range h.done {
		keys[o.key] = append(keys[o.key], o)
	}
	return keys
}

// acknowledged counts the writes that were asked for since and acknowledged.
func (h *history) acknowledged(since time.Duration) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, o := range slices.Backward(h.done) {
		if o.ended < since {
			break
		}
		if o.wrote() && o.invoked >= since {
			n++
		}
	}
	return n
}

// register is what a key is: a value that is put, got, or put over another.
// An operation whose outcome is not known may do what it would.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		asked, answer := in.(operation), out.(operation)
		switch {
		case asked.kind == put:
			return true, asked.value
		case asked.kind == cas && state == asked.expect:
			return answer.err != nil || answer.swapped, asked.value
		case answer.err != nil:
			return true, state
		}
		return !answer.swapped && answer.got == state, state
	},
}

// linearizable tells whether the operations on one key can have happened one
// after the other, each between its invocation and its end.
func linearizable(operations []operation) bool {
	return porcupine.CheckOperationsTimeout(register, events(operations), patience) == porcupine.Ok
}

func events(operations []operation) []porcupine.Operation {
	var events []porcupine.Operation
	for _, o := range bounded(operations) {
		events = append(events, porcupine.Operation{ClientId: o.client, Input: o, Call: int64(o.invoked), Output: o, Return: int64(o.ended)})
	}
	return events
}

// bounded gives operations of unknown outcome an end, without which the
// checker's work grows with each of them exponentially. A read of no known
// outcome says nothing. A write whose value nobody saw can be left out: each
// operation after it that depends on the value would have seen it. One whose
// value was seen happened before the first who saw it had his answer.
func bounded(operations []operation) []operation {
	seen := map[string]time.Duration{}
	for _, o := range operations {
		value := o.saw()
		if first, ok := seen[value]; !ok || o.ended < first {
			seen[value] = o.ended
		}
	}
	var sure []operation
	for _, o := range operations {
		if o.err != nil {
			end, ok := seen[o.value]
			if o.kind == get || !ok {
				continue
			}
			o.ended = end
		}
		sure = append(sure, o)
	}
	return sure
}

// misfit is the first operation to end that has no place in the longest order
// that there is for operations which are not linearizable.
func misfit(operations []operation) operation {
	_, info := porcupine.CheckOperationsVerbose(register, events(operations), patience)
	placed := map[time.Duration]bool{}
	for _, orders := range info.PartialLinearizationsOperations() {
		longest := slices.MaxFunc(orders, func(a, b []porcupine.Operation) int { return len(a) - len(b) })
		for _, o := range longest {
			placed[o.Input.(operation).invoked] = true
		}
	}
	byEnd := slices.SortedFunc(slices.Values(operations), func(a, b operation) int { return cmp.Compare(a.ended, b.ended) })
	for _, o := range byEnd {
		if o.err == nil && !placed[o.invoked] {
			return o
		}
	}
	return byEnd[len(byEnd)-1]
}

// around is the operations on a key at the time of one of them, and before.
func around(operations []operation, one operation) string {
	slices.SortFunc(operations, func(a, b operation) int { return cmp.Compare(a.invoked, b.invoked) })
	var b strings.Builder
	for _, o := range operations {
		if o.ended > one.invoked-time.Second && o.invoked < one.ended+time.Second/10 {
			fmt.Fprintln(&b, o)
		}
	}
	return b.String()
}
