package assign

import (
	"context"
	"log/slog"
	"net/netip"

	"slipway/configs/cluster"
)

// VirtualIPs are the addresses that the clusters' documents take for their control
// planes. No machine may be given one.
func (o *Office) VirtualIPs(ctx context.Context) ([]netip.Addr, error) {
	records, err := o.clusters.List(ctx)
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, one := range records {
		doc, err := cluster.Parse([]byte(one.Document), one.Name)
		if err == nil && doc.VirtualIP.IsValid() { // one that cannot be read is its own cluster's trouble alone
			all = append(all, doc.VirtualIP)
		}
	}
	return all, nil
}

// RunVirtualIPs calls use with them whenever a cluster has changed, until ctx
// ends. Several boot services that share the clusters may do so at once.
func (o *Office) RunVirtualIPs(ctx context.Context, log *slog.Logger, use func([]netip.Addr)) error {
	anyOf := func(string) bool { return true }
	lookOn(ctx, func() error {
		return o.store.WaitFor(ctx, anyOf, func() (bool, error) {
			all, err := o.VirtualIPs(ctx)
			if err == nil {
				use(all)
			}
			return false, err
		}, o.clusters)
	}, func(err error) { log.Warn("virtual IPs are not looked at", "unit", "virtual-ips", "error", err) })
	return nil
}
