package netconf

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loopbackUp brings up lo; the kernel gives it its addresses.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// links lists the Ethernet interfaces.
func links(sys string) ([]link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var found []link
	for _, l := range all {
		attrs := l.Attrs()
		if attrs.EncapType != "ether" || len(attrs.HardwareAddr) != 6 {
			continue
		}
		_, err := os.Stat(filepath.Join(sys, "class/net", attrs.Name, "device"))
		found = append(found, link{
			name: attrs.Name, mac: attrs.HardwareAddr, physical: err == nil,
			up: attrs.Flags&net.FlagUp != 0, carrier: attrs.RawFlags&unix.IFF_LOWER_UP != 0,
		})
	}
	return found, nil
}

func linksUp(names []string) error {
	for _, name := range names {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return fmt.Errorf("bring up %s: %w", name, err)
		}
	}
	return nil
}

// watchLinks signals each change of an interface until stop is called.
func watchLinks() (changes <-chan struct{}, stop func(), err error) {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return nil, nil, fmt.Errorf("watch network interfaces: %w", err)
	}
	signal := make(chan struct{}, 1)
	go func() { // ends when LinkSubscribe closes updates, after stop
		for range updates {
			select {
			case signal <- struct{}{}:
			default:
			}
		}
	}()
	return signal, func() { close(done) }, nil
}

// currentAddress is the IPv4 address a link has already, after a restart of
// the agent, so that the same is asked for; the zero value if there is none.
func currentAddress(name string) netip.Prefix {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return netip.Prefix{}
	}
	addrs, err := netlink.AddrList(l, unix.AF_INET)
	if err != nil || len(addrs) == 0 {
		return netip.Prefix{}
	}
	addr, _ := address(addrs[0].IP)
	ones, _ := addrs[0].Mask.Size()
	return netip.PrefixFrom(addr, ones)
}

// heldAlready is the lease of an address that a link has, its time over.
func heldAlready(links []link) (Lease, bool) {
	for _, l := range links {
		if addr := currentAddress(l.name); addr.IsValid() {
			return Lease{Link: l.name, Address: addr, Since: time.Now()}, true
		}
	}
	return Lease{}, false
}

// configure gives a link its address and routes. It may be repeated.
func configure(l Lease) error {
	dev, err := netlink.LinkByName(l.Link)
	if err != nil {
		return err
	}
	if l.MTU != 0 && l.MTU != dev.Attrs().MTU {
		if err := netlink.LinkSetMTU(dev, l.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", l.MTU, err)
		}
	}
	if err := netlink.AddrReplace(dev, &netlink.Addr{IPNet: ipNet(l.Address)}); err != nil {
		return fmt.Errorf("set address %s: %w", l.Address, err)
	}
	for _, r := range routesOf(l) {
		if err := netlink.RouteReplace(netlinkRoute(dev, l, r)); err != nil {
			return fmt.Errorf("set route to %s via %s: %w", r.To, r.Via, err)
		}
	}
	return nil
}

// routesOf lists a lease's routes, those on the link first: a router may be
// reached through one of them.
func routesOf(l Lease) []Route {
	var onLink, via []Route
	for _, r := range l.Routes {
		if r.Via.IsUnspecified() {
			onLink = append(onLink, r)
		} else {
			via = append(via, r)
		}
	}
	if l.Router.IsValid() && !l.Router.IsUnspecified() {
		via = append(via, Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: l.Router})
	}
	return append(onLink, via...)
}

func netlinkRoute(dev netlink.Link, l Lease, r Route) *netlink.Route {
	route := &netlink.Route{
		LinkIndex: dev.Attrs().Index, Dst: ipNet(r.To), Src: l.Address.Addr().AsSlice(), Protocol: unix.RTPROT_DHCP,
	}
	if r.Via.IsUnspecified() {
		route.Scope = netlink.SCOPE_LINK
		return route
	}
	route.Gw = r.Via.AsSlice()
	if !l.Address.Contains(r.Via) { // a router beyond the subnet, as some clouds and /32 leases have it
		route.SetFlag(netlink.FLAG_ONLINK)
	}
	return route
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
