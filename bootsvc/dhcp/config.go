// Package dhcp is an authoritative DHCPv4 server for one range on one
// interface (RFC 2131, 2132, 4578). It gives machines their addresses and tells
// their firmware what to load. Every packet is parsed, decided and answered by
// three functions of those names; decide is pure. It is not a relay and has no
// address plan of its own: which addresses there are is package lease's, what a
// firmware loads is package firmware's. Package bootsvc runs it.
package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is what the server says to its clients.
type Config struct {
	// Interface is the only one that is listened to, by its name.
	Interface string
	// Address is the server's own on that interface: server identifier
	// and TFTP server.
	Address netip.Addr
	// Subnet is the interface's.
	Subnet netip.Prefix
	// Router is the default gateway; the zero value for none.
	Router netip.Addr
	// DNS are name servers; may be empty.
	DNS []netip.Addr
	// LeaseTime, by default a day, is how long a lease lasts unrenewed:
	// also how long a cluster can do without the boot service.
	LeaseTime time.Duration
	// OfferTime, by default a minute, is how long an offer holds its address.
	OfferTime time.Duration
	// HTTP is the base URL of the boot artifacts, http://address[:port].
	HTTP string
}

func (c Config) complete() (Config, error) {
	if c.LeaseTime == 0 {
		c.LeaseTime = 24 * time.Hour
	}
	if c.OfferTime == 0 {
		c.OfferTime = time.Minute
	}
	var errs []error
	if c.Interface == "" {
		errs = append(errs, errors.New("interface: not set"))
	}
	if !c.Address.Is4() || !c.Subnet.Contains(c.Address) {
		errs = append(errs, fmt.Errorf("address: %s is no IPv4 address of %s", c.Address, c.Subnet))
	}
	if c.Router.IsValid() && !c.Subnet.Contains(c.Router) {
		errs = append(errs, fmt.Errorf("router: %s is not in %s", c.Router, c.Subnet))
	}
	// Shorter, and T1 and T2 round to nothing.
	if c.LeaseTime < time.Minute {
		errs = append(errs, fmt.Errorf("lease time: %s is less than a minute", c.LeaseTime))
	}
	return c, errors.Join(errs...)
}
