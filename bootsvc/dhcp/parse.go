package dhcp

import (
	"encoding/hex"
	"errors"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"slipway/bootsvc/firmware"
	"slipway/bootsvc/lease"
	"slipway/bootsvc/source"
)

// maxPacket is the longest packet that is read: what fits an Ethernet frame.
const maxPacket = 1500

// Why a packet is not even considered. The texts are counter labels.
var (
	errMalformed = errors.New("malformed")
	errReply     = errors.New("not a request")
	errHardware  = errors.New("hardware type not Ethernet")
	errBOOTP     = errors.New("BOOTP, not DHCP")
	errLong      = errors.New("option too long")
)

// request is a client's packet and what every decision needs of it.
type request struct {
	packet   *dhcpv4.DHCPv4
	kind     dhcpv4.MessageType
	client   lease.Client
	hostname string
	firmware firmware.Client
	// from is what the machine is to boot from, if it boots.
	from source.Source
	// server is option 54, ciaddr and requested (option 50) as they are;
	// the zero value when the client left them out.
	server, ciaddr, requested, relay netip.Addr
}

// parse reads a packet. It accepts any bytes.
func parse(b []byte) (request, error) {
	if len(b) > maxPacket {
		return request{}, errMalformed
	}
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return request{}, errMalformed
	}
	if err := check(p); err != nil {
		return request{}, err
	}
	r := request{
		packet:    p,
		kind:      p.MessageType(),
		hostname:  printable(p.HostName()),
		firmware:  firmware.Identify(p),
		server:    address(p.ServerIdentifier()),
		ciaddr:    address(p.ClientIPAddr),
		requested: address(p.RequestedIPAddress()),
		relay:     address(p.GatewayIPAddr),
	}
	r.client = lease.Client{
		MAC:      p.ClientHWAddr.String(),
		ClientID: hex.EncodeToString(p.Options.Get(dhcpv4.OptionClientIdentifier)),
		Wants:    r.requested,
	}
	if !r.client.Wants.IsValid() {
		r.client.Wants = r.ciaddr
	}
	return r, nil
}

func check(p *dhcpv4.DHCPv4) error {
	switch {
	case p.OpCode != dhcpv4.OpcodeBootRequest:
		return errReply
	case p.HWType != iana.HWTypeEthernet || len(p.ClientHWAddr) != 6:
		return errHardware
	// A group address, or none, is nobody's hardware address.
	case p.ClientHWAddr[0]&1 != 0 || [6]byte(p.ClientHWAddr) == [6]byte{}:
		return errHardware
	case p.MessageType() == dhcpv4.MessageTypeNone:
		return errBOOTP
	}
	// These are echoed; RFC 3396 lets a sender make them any length in pieces.
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionClientIdentifier, dhcpv4.OptionRelayAgentInformation} {
		if len(p.Options.Get(code)) > 255 {
			return errLong
		}
	}
	return nil
}

func address(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// printable keeps a client's own words out of terminals' way.
func printable(s string) string {
	out := make([]rune, 0, min(len(s), 63))
	for _, c := range s {
		if c < ' ' || c > '~' || len(out) == 63 {
			break
		}
		out = append(out, c)
	}
	return string(out)
}
