package api

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What strangers may ask for. A machine that waits for approval asks every
// second or two.
const (
	perSource   = 4 // requests a second from one address
	burst       = 16
	inAll       = 400 // requests a second from all addresses
	maxRationed = 4096
)

// ration bounds how often each address may ask. It is safe for concurrent use.
type ration struct {
	now func() time.Time

	mu      sync.Mutex
	total   *rate.Limiter
	sources map[netip.Addr]*rate.Limiter
}

func newRation(now func() time.Time) *ration {
	return &ration{now: now, total: rate.NewLimiter(inAll, inAll), sources: map[netip.Addr]*rate.Limiter{}}
}

// allow takes one request from the address's ration, if there is one left.
func (r *ration) allow(from netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	source, known := r.sources[from]
	if !known {
		r.forget(now)
		source = rate.NewLimiter(perSource, burst)
		r.sources[from] = source
	}
	return source.AllowN(now, 1) && r.total.AllowN(now, 1)
}

// forget makes room by dropping those whose ration is full again, and all of
// them when that is not enough: inAll still holds.
func (r *ration) forget(now time.Time) {
	if len(r.sources) < maxRationed {
		return
	}
	for from, source := range r.sources {
		if source.TokensAt(now) >= burst {
			delete(r.sources, from)
		}
	}
	if len(r.sources) >= maxRationed {
		clear(r.sources)
	}
}
