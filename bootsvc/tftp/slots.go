package tftp

import (
	"bytes"
	"context"
	"net/netip"
	"sync"
)

// slots counts the transfers under way, by source.
type slots struct {
	mu    sync.Mutex
	total int
	by    map[netip.Addr]int
}

func (s *slots) enter(source netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxTransfers || s.by[source] >= maxPerSource {
		return false
	}
	s.total++
	s.by[source]++
	return true
}

func (s *slots) leave(source netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.by[source]--; s.by[source] == 0 {
		delete(s.by, source)
	}
}

// file is read until its end, or its context's.
type file struct {
	*bytes.Reader
	ctx context.Context
}

// Read ends the transfer when the context has ended.
func (f *file) Read(b []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	return f.Reader.Read(b)
}
