package dhcp

import (
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slipway/bootsvc/lease"
)

// change is what a decision does to the lease table.
type change int

const (
	keep    change = iota
	grant          // record the decision's lease; before an ACK, save it too
	release        // end the client's lease on the address
	decline        // as release, and quarantine the address
)

// decision is what becomes of one request.
type decision struct {
	// reply is what is sent; none sends nothing.
	reply  dhcpv4.MessageType
	change change
	// lease is what grant records; release and decline use its MAC and address.
	lease lease.Lease
	// reason is why a client got nothing or a NAK; a counter label. Empty
	// when all went as the client hoped.
	reason string
}

func silent(reason string) decision { return decision{reason: reason} }
func nak(reason string) decision {
	return decision{reply: dhcpv4.MessageTypeNak, reason: reason}
}

// decide applies RFC 2131, section 4.3, to a request and what the lease table
// knows of its client. It is pure.
func (c Config) decide(r request, v lease.View, now time.Time) decision {
	if r.relay.IsValid() && !c.Subnet.Contains(r.relay) {
		return silent("relayed from another subnet")
	}
	switch r.kind {
	case dhcpv4.MessageTypeDiscover:
		return c.discover(r, v, now)
	case dhcpv4.MessageTypeRequest:
		return c.request(r, v, now)
	case dhcpv4.MessageTypeDecline:
		return c.giveBack(r, r.requested, decline)
	case dhcpv4.MessageTypeRelease:
		return c.giveBack(r, r.ciaddr, release)
	case dhcpv4.MessageTypeInform:
		return c.inform(r)
	}
	return silent("message type not for servers")
}

func (c Config) discover(r request, v lease.View, now time.Time) decision {
	if !v.Free.IsValid() {
		return silent("no address free")
	}
	d := decision{reply: dhcpv4.MessageTypeOffer, change: grant, lease: c.leased(r, v.Free, now.Add(c.OfferTime))}
	if v.Mine.Address == v.Free && v.Mine.Bound && v.Mine.Active(now) {
		// A machine that restarts keeps the lease it has until it
		// takes the offer; a forged DISCOVER must not shorten it.
		d.lease = v.Mine
	}
	return d
}

// request tells the four kinds of REQUEST apart by table 4 of RFC 2131.
func (c Config) request(r request, v lease.View, now time.Time) decision {
	selecting := r.server.IsValid()
	switch {
	case selecting && r.server != c.Address:
		return c.lost(r, v)
	case !r.client.Wants.IsValid():
		return silent("request names no address")
	case !selecting && !c.Subnet.Contains(r.client.Wants):
		return nak("address of another subnet")
	case v.Refused == lease.ErrOutside && !selecting && v.Mine.Address != r.client.Wants:
		// The address is of our subnet and not of our range: whoever
		// gave it may be right, and RFC 2131 says to be silent.
		return silent("address not ours to lease")
	case v.Refused != nil:
		return nak(v.Refused.Error())
	case v.Mine.Active(now) && v.Mine.Address != r.client.Wants:
		return nak("client holds another address")
	}
	// A client that we do not know and that asks for a free address of our
	// range is believed: we are authoritative for the range, and only a
	// store that was lost explains it.
	l := c.leased(r, r.client.Wants, now.Add(c.LeaseTime))
	l.Bound = true
	return decision{reply: dhcpv4.MessageTypeAck, change: grant, lease: l}
}

// lost is a client's word that it took another server's offer.
func (c Config) lost(r request, v lease.View) decision {
	d := silent("client chose another server")
	if v.Mine.Address.IsValid() && !v.Mine.Bound {
		d.change, d.lease = release, v.Mine
	}
	return d
}

func (c Config) giveBack(r request, a netip.Addr, ch change) decision {
	if r.server != c.Address {
		return silent("meant for another server")
	}
	return decision{change: ch, lease: lease.Lease{MAC: r.client.MAC, Address: a}}
}

func (c Config) inform(r request) decision {
	if !c.Subnet.Contains(r.ciaddr) {
		return silent("inform from another subnet")
	}
	return decision{reply: dhcpv4.MessageTypeAck}
}

func (c Config) leased(r request, a netip.Addr, until time.Time) lease.Lease {
	return lease.Lease{
		MAC:      r.client.MAC,
		ClientID: r.client.ClientID,
		Address:  a,
		Hostname: r.hostname,
		Expires:  until,
	}
}
