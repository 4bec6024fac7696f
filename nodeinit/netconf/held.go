package netconf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HoldAddress has a link hold one more IPv4 address, by itself and without a
// subnet. It may be repeated. The link's own addresses stay before it.
func HoldAddress(link string, addr netip.Addr) error {
	dev, err := netlink.LinkByName(link)
	if err == nil {
		err = netlink.AddrReplace(dev, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, addr.BitLen()))})
	}
	if err != nil {
		return fmt.Errorf("hold address %s on %s: %w", addr, link, err)
	}
	return nil
}

// DropAddress takes an address of HoldAddress off a link. One that is not there
// is fine.
func DropAddress(link string, addr netip.Addr) error {
	dev, err := netlink.LinkByName(link)
	if err == nil {
		err = netlink.AddrDel(dev, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, addr.BitLen()))})
	}
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("drop address %s from %s: %w", addr, link, err)
	}
	return nil
}
