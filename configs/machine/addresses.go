package machine

import "net/netip"

// APIAddress is the cluster address of the API service: the first of the
// service subnet, where Kubernetes puts it.
func (c Cluster) APIAddress() netip.Addr { return nth(c.ServiceSubnet, 1) }

// DNSAddress is the cluster address of the DNS service: the tenth of the
// service subnet, by custom.
func (c Cluster) DNSAddress() netip.Addr { return nth(c.ServiceSubnet, 10) }

func nth(subnet netip.Prefix, n int) netip.Addr {
	addr := subnet.Masked().Addr()
	for range n {
		addr = addr.Next()
	}
	return addr
}
