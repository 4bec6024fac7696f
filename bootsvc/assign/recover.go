package assign

import (
	"context"
	"net/netip"

	"slipway/nodeinit/api/nodev1"
)

// AskStatus asks the node at an address how its member of etcd is. It blocks
// for a few seconds at most.
type AskStatus func(ctx context.Context, node netip.Addr) (*nodev1.EtcdStatusResponse, error)
