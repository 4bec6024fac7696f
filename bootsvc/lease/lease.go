// Package lease decides which machine has which IPv4 address: a range,
// reservations, addresses that stick to a machine, quarantine for addresses
// that somebody else was seen to use. It knows neither packets nor disks: the
// DHCP server asks it and writes leases to a Store before it promises them.
package lease

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Lease is one machine's hold on one address.
type Lease struct {
	// MAC is the machine's hardware address, lower case with colons. A
	// machine has one lease, whatever client identifiers its firmware, its
	// loader and its operating system show.
	MAC string `json:"mac"`
	// ClientID is the client identifier last shown (RFC 2132, 9.14), in hex.
	ClientID string     `json:"clientID,omitempty"`
	Address  netip.Addr `json:"address"`
	// Hostname is what the client calls itself; nothing is decided by it.
	Hostname string `json:"hostname,omitempty"`
	// Bound is false while the address is offered only.
	Bound   bool      `json:"bound"`
	Expires time.Time `json:"expires"`
}

// Active says whether the lease, or the offer, holds its address at a time.
func (l Lease) Active(now time.Time) bool {
	return l.Address.IsValid() && now.Before(l.Expires)
}

// Store keeps bound leases across restarts. Its calls may block; they are
// made with the caller's deadline and may be repeated.
type Store interface {
	Load(ctx context.Context) ([]Lease, error)
	// Save writes the lease under its MAC, over an older one.
	Save(ctx context.Context, l Lease) error
	// Delete forgets the MAC's lease; an unknown MAC is no error.
	Delete(ctx context.Context, mac string) error
}

// Why an address cannot be given to a client.
var (
	ErrOutside     = errors.New("address outside the range")
	ErrTaken       = errors.New("address held by another machine")
	ErrReserved    = errors.New("address reserved otherwise")
	ErrQuarantined = errors.New("address in quarantine")
)
