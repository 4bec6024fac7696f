package lease

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
)

// MaxPool is the most addresses a range may have.
const MaxPool = 1 << 16

// Pool is what may be leased.
type Pool struct {
	// First and Last are the ends of the range, both of it.
	First, Last netip.Addr
	// Exclude are addresses of the range that are never leased: the
	// server's own, the router's.
	Exclude []netip.Addr
	// Reservations give a MAC (lower case, colons) its address, in the
	// range or outside it. Nobody else gets a reserved address.
	Reservations map[string]netip.Addr
}

// Validate says what is wrong with the pool.
func (p Pool) Validate() error {
	if !p.First.Is4() || !p.Last.Is4() {
		return fmt.Errorf("range %s-%s: both ends must be IPv4 addresses", p.First, p.Last)
	}
	if p.Last.Less(p.First) {
		return fmt.Errorf("range %s-%s: the last address comes before the first", p.First, p.Last)
	}
	if p.size() > MaxPool {
		return fmt.Errorf("range %s-%s: %d addresses, at most %d", p.First, p.Last, p.size(), MaxPool)
	}
	owner := map[netip.Addr]string{}
	var errs []error
	for mac, addr := range p.Reservations {
		if other, twice := owner[addr]; twice {
			errs = append(errs, fmt.Errorf("reservation %s: %s and %s both have it", addr, min(mac, other), max(mac, other)))
		}
		owner[addr] = mac
	}
	return errors.Join(errs...)
}

func (p Pool) contains(a netip.Addr) bool {
	return a.Is4() && !a.Less(p.First) && !p.Last.Less(a)
}

func (p Pool) size() uint64 { return uint64(number(p.Last)) - uint64(number(p.First)) + 1 }

// at returns the i-th address of the range, counted around its end.
func (p Pool) at(i uint64) netip.Addr {
	n := number(p.First) + uint32(i%p.size())
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// start is where the search for a MAC's address begins. It depends on nothing
// else, so most machines keep their address even when the store is lost.
func (p Pool) start(mac string) uint64 {
	h := fnv.New32a()
	h.Write([]byte(mac))
	return uint64(h.Sum32())
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
