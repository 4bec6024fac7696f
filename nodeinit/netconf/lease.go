package netconf

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// leaseFrom reads a DHCPACK. The times are counted from now.
func leaseFrom(link string, ack *dhcpv4.DHCPv4, now time.Time) (Lease, error) {
	addr, ok := address(ack.YourIPAddr)
	if !ok || addr.IsUnspecified() {
		return Lease{}, fmt.Errorf("read DHCP answer on %s: it has no address", link)
	}
	ones, bits := ack.SubnetMask().Size()
	if bits != 32 {
		return Lease{}, fmt.Errorf("read DHCP answer on %s: it has no subnet mask", link)
	}
	l := Lease{
		Link: link, Address: netip.PrefixFrom(addr, ones),
		Domain: ack.DomainName(), Hostname: ack.HostName(), Since: now,
	}
	l.Server, _ = address(ack.ServerIdentifier())
	if routers := ack.Router(); len(routers) > 0 {
		l.Router, _ = address(routers[0])
	}
	for _, ip := range ack.DNS() {
		if dns, ok := address(ip); ok {
			l.DNS = append(l.DNS, dns)
		}
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 {
		l.MTU = int(mtu)
	}
	l.readRoutes(ack)
	l.readTimes(ack)
	return l, nil
}

// readRoutes takes option 121, which replaces the router option (RFC 3442).
func (l *Lease) readRoutes(ack *dhcpv4.DHCPv4) {
	routes := ack.ClasslessStaticRoute()
	if len(routes) == 0 {
		return
	}
	l.Router = netip.Addr{}
	for _, r := range routes {
		to, ok := address(r.Dest.IP)
		via, okVia := address(r.Router)
		ones, _ := r.Dest.Mask.Size()
		switch {
		case !ok || !okVia:
		case ones == 0:
			l.Router = via
		default:
			l.Routes = append(l.Routes, Route{netip.PrefixFrom(to, ones).Masked(), via})
		}
	}
}

// readTimes takes the lease's times; T1 and T2 that are missing or out of
// order become a half and seven eighths (RFC 2131, 4.4.5).
func (l *Lease) readTimes(ack *dhcpv4.DHCPv4) {
	l.Duration = max(ack.IPAddressLeaseTime(time.Hour), time.Minute)
	l.Renewal = ack.IPAddressRenewalTime(l.Duration / 2)
	l.Rebind = ack.IPAddressRebindingTime(l.Duration * 7 / 8)
	if l.Renewal <= 0 || l.Renewal >= l.Rebind || l.Rebind >= l.Duration {
		l.Renewal, l.Rebind = l.Duration/2, l.Duration*7/8
	}
}

func address(ip net.IP) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(ip.To4())
	return addr, ok
}

// action is what a lease asks for at some time.
type action int

const (
	hold     action = iota // nothing yet
	renew                  // ask the server that gave it
	rebind                 // ask every server for the same address
	discover               // it has ended: ask for an address, this one if possible
)

func (a action) String() string { return [...]string{"hold", "renew", "rebind", "discover"}[a] }

// due says what to do with a lease at now, and when to look again. The time
// between two attempts is half of what is left until the next threshold, at
// least a minute (RFC 2131, 4.4.5), and a minute once the lease has ended.
func (l Lease) due(now time.Time) (action, time.Duration) {
	age := now.Sub(l.Since)
	left := func(until time.Duration) time.Duration { return max((until-age)/2, time.Minute) }
	switch {
	case age < l.Renewal:
		return hold, l.Renewal - age
	case age < l.Rebind:
		return renew, min(left(l.Rebind), l.Rebind-age)
	case age < l.Duration:
		return rebind, min(left(l.Duration), l.Duration-age)
	}
	return discover, time.Minute
}
