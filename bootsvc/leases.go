package bootsvc

import (
	"context"

	"slipway/bootsvc/lease"
	"slipway/bootsvc/store"
)

// leases keeps the DHCP server's leases in the store.
type leases struct{ table store.Table[lease.Lease] }

func newLeases(s *store.Store) leases { return leases{store.NewTable[lease.Lease](s, "leases")} }

// Load returns every lease that was saved.
func (l leases) Load(ctx context.Context) ([]lease.Lease, error) { return l.table.List(ctx) }

// Save writes a lease over the MAC's older one.
func (l leases) Save(ctx context.Context, one lease.Lease) error {
	return l.table.Put(ctx, one.MAC, one)
}

// Delete forgets the MAC's lease.
func (l leases) Delete(ctx context.Context, mac string) error { return l.table.Delete(ctx, mac) }
