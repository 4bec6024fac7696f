package bootsvc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"slipway/bootsvc/lease"
)

// link is the interface that the machines are on.
type link struct {
	name   string
	prefix netip.Prefix // the server's own address with its subnet
}

// findLink finds the interface and its IPv4 address. Without a name, there must
// be exactly one that could be meant.
func findLink(name string) (link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return link{}, fmt.Errorf("list interfaces: %w", err)
	}
	var usable []link
	var names []string
	for _, one := range all {
		names = append(names, one.Name)
		prefix, ok := address(one)
		switch {
		case one.Name == name && !ok:
			return link{}, fmt.Errorf("use interface %s: it has no IPv4 address; give it one: ip address add ADDRESS/24 dev %s", name, name)
		case one.Name == name:
			return link{name, prefix}, nil
		case ok && one.Flags&net.FlagLoopback == 0 && one.Flags&net.FlagUp != 0:
			usable = append(usable, link{one.Name, prefix})
		}
	}
	switch {
	case name != "":
		return link{}, fmt.Errorf("use interface %s: there is none of that name; there are %s", name, strings.Join(names, ", "))
	case len(usable) == 1:
		return usable[0], nil
	}
	return link{}, fmt.Errorf("choose an interface: %d could be meant%s; name the machines' one with --interface", len(usable), list(usable))
}

func list(links []link) (text string) {
	for _, l := range links {
		text += fmt.Sprintf(", %s (%s)", l.name, l.prefix)
	}
	return text
}

// address is the interface's first IPv4 address.
func address(one net.Interface) (netip.Prefix, bool) {
	addresses, err := one.Addrs()
	if err != nil {
		return netip.Prefix{}, false
	}
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().Is4() {
			return prefix, true
		}
	}
	return netip.Prefix{}, false
}

// poolOf is the range to lease from: what a person wrote, FIRST-LAST, or
// the upper half of the subnet.
func (l link) poolOf(text string) (lease.Pool, error) {
	subnet := l.prefix.Masked()
	pool := lease.Pool{Exclude: []netip.Addr{l.prefix.Addr()}}
	if text == "" {
		if subnet.Bits() > 28 {
			return lease.Pool{}, fmt.Errorf("choose a range: %s is too small to guess one; give it with --range FIRST-LAST", subnet)
		}
		pool.First, pool.Last = upperHalf(subnet)
		return pool, nil
	}
	first, last, found := strings.Cut(text, "-")
	var errs [2]error
	pool.First, errs[0] = netip.ParseAddr(strings.TrimSpace(first))
	pool.Last, errs[1] = netip.ParseAddr(strings.TrimSpace(last))
	if err := errors.Join(errs[:]...); !found || err != nil {
		return lease.Pool{}, fmt.Errorf("read range %q: it is not FIRST-LAST, such as 10.0.0.100-10.0.0.200", text)
	}
	if err := pool.Validate(); err != nil {
		return lease.Pool{}, err
	}
	if !subnet.Contains(pool.First) || !subnet.Contains(pool.Last) {
		return lease.Pool{}, fmt.Errorf("use range %s: it is not inside %s, the subnet of %s", text, subnet, l.name)
	}
	return pool, nil
}

// upperHalf is the second half of a subnet, without its broadcast address.
func upperHalf(subnet netip.Prefix) (first, last netip.Addr) {
	base := subnet.Addr().As4()
	start := binary.BigEndian.Uint32(base[:])
	size := uint32(1) << (32 - subnet.Bits())
	half := min(size/2, lease.MaxPool)
	return ipv4(start + size - half), ipv4(start + size - 2)
}

func ipv4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}
