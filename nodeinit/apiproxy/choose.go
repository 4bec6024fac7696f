package apiproxy

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// view is what is known of an upstream when a connection is to be placed.
type view struct {
	addr  string
	own   bool
	level Level
	conns int

	upstream *upstream // for the caller; choose does not look
}

// choose puts the upstreams in the order a new connection is to try them: the
// healthy first, this machine's own before others; then, should there be none,
// whatever may still answer. Among equals the one with the fewest connections
// goes first, and seed, which every node has its own of, decides the rest: the
// nodes of a cluster do not all go the same way.
func choose(upstreams []view, seed uint64) []view {
	order := slices.Clone(upstreams)
	slices.SortStableFunc(order, func(a, b view) int {
		return cmp.Or(
			cmp.Compare(b.level, a.level),
			compareOwn(a, b),
			cmp.Compare(a.conns, b.conns),
			cmp.Compare(weight(a.addr, seed), weight(b.addr, seed)),
		)
	})
	return order
}

func compareOwn(a, b view) int {
	switch {
	case a.own == b.own:
		return 0
	case a.own:
		return -1
	}
	return 1
}

// weight orders the upstreams differently for each seed, but always so for one
// seed, whatever other upstreams there are (rendezvous hashing).
func weight(addr string, seed uint64) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(append(binary.LittleEndian.AppendUint64(nil, seed), addr...))
	return h.Sum64()
}

// mustMove says whether the connections of an upstream are to be cut, so that
// their clients connect anew: it is not well and another one is better. An
// upstream that nothing is better than keeps its connections; if it is gone,
// they end by themselves.
func mustMove(from view, all []view) bool {
	return from.level < Unknown && slices.ContainsFunc(all, func(v view) bool { return v.level > from.level && v.level != Unknown })
}
