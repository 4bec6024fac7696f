package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slipway/bootsvc/firmware"
)

const (
	serverPort = 67
	clientPort = 68
)

// destination is where a reply goes. With hardware set, the client has no
// address to its name yet and cannot answer ARP: the frame is sent to the MAC.
type destination struct {
	to       netip.AddrPort
	hardware bool
}

// answer writes the reply that a decision calls for, and says where it goes.
func (c Config) answer(r request, d decision) (*dhcpv4.DHCPv4, destination, error) {
	p, err := dhcpv4.NewReplyFromRequest(r.packet,
		dhcpv4.WithMessageType(d.reply),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(c.Address.AsSlice())))
	if err != nil {
		return nil, destination{}, err
	}
	if id := r.packet.Options.Get(dhcpv4.OptionClientMachineIdentifier); len(id) == 17 {
		// RFC 4578, 2.3: the server sends it back.
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, id))
	}
	if d.reply == dhcpv4.MessageTypeNak {
		p.UpdateOption(dhcpv4.OptMessage(d.reason))
		if r.relay.IsValid() {
			p.SetBroadcast() // RFC 2131, 4.3.2: the relay must broadcast it
		}
		return p, c.route(r, d), nil
	}
	c.network(p)
	if d.change == grant {
		c.times(p)
		p.YourIPAddr = d.lease.Address.AsSlice()
	}
	if r.kind != dhcpv4.MessageTypeDiscover {
		p.ClientIPAddr = r.packet.ClientIPAddr
	}
	boot, _ := firmware.Choose(r.firmware, firmware.Server{TFTP: c.Address, HTTP: c.HTTP}, r.from)
	load(p, boot)
	return p, c.route(r, d), nil
}

func (c Config) network(p *dhcpv4.DHCPv4) {
	p.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(c.Subnet.Bits(), 32)))
	if c.Router.IsValid() {
		p.UpdateOption(dhcpv4.OptRouter(c.Router.AsSlice()))
	}
	var dns []net.IP
	for _, a := range c.DNS {
		dns = append(dns, a.AsSlice())
	}
	if len(dns) > 0 {
		p.UpdateOption(dhcpv4.OptDNS(dns...))
	}
}

// times are the lease time and RFC 2131's defaults for T1 and T2: a half and
// seven eighths of it.
func (c Config) times(p *dhcpv4.DHCPv4) {
	p.UpdateOption(dhcpv4.OptIPAddressLeaseTime(c.LeaseTime))
	p.UpdateOption(dhcpv4.OptRenewTimeValue(c.LeaseTime / 2))
	p.UpdateOption(dhcpv4.OptRebindingTimeValue(c.LeaseTime / 8 * 7))
}

// load puts what to boot into the header and into options 66 and 67: firmware
// reads one or the other.
func load(p *dhcpv4.DHCPv4, b firmware.Boot) {
	if b.VendorClass != "" {
		p.UpdateOption(dhcpv4.OptClassIdentifier(b.VendorClass))
	}
	if b.NoProxy {
		p.UpdateOption(firmware.Direct())
	}
	if b.File == "" {
		return
	}
	p.BootFileName = b.File
	p.UpdateOption(dhcpv4.OptBootFileName(b.File))
	if b.TFTP.IsValid() {
		p.ServerIPAddr = b.TFTP.AsSlice()
		p.UpdateOption(dhcpv4.OptTFTPServerName(b.TFTP.String()))
	}
}

// route applies RFC 2131, section 4.1, to where a reply goes.
func (c Config) route(r request, d decision) destination {
	broadcast := destination{to: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)}
	switch {
	case r.relay.IsValid():
		return destination{to: netip.AddrPortFrom(r.relay, serverPort)}
	case d.reply == dhcpv4.MessageTypeNak:
		return broadcast
	case r.ciaddr.IsValid():
		return destination{to: netip.AddrPortFrom(r.ciaddr, clientPort)}
	case r.packet.IsBroadcast():
		return broadcast
	}
	return destination{to: netip.AddrPortFrom(d.lease.Address, clientPort), hardware: true}
}
