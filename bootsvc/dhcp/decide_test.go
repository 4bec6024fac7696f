package dhcp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slipway/bootsvc/lease"
)

var (
	us       = testConfig.Address
	them     = netip.MustParseAddr("10.99.0.9")
	machine  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	stranger = "02:00:00:00:00:99"
)

func host(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, n}) }

func bound(mac string, a netip.Addr, left time.Duration) lease.Lease {
	return lease.Lease{MAC: mac, Address: a, Bound: true, Expires: noon.Add(left)}
}

// packet is a client's packet with what a case says of it.
type packet struct {
	kind                             dhcpv4.MessageType
	ciaddr, requested, server, relay netip.Addr
	broadcast                        bool
}

func (p packet) bytes(t testing.TB) []byte {
	t.Helper()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(machine), dhcpv4.WithMessageType(p.kind), dhcpv4.WithBroadcast(p.broadcast))
	if err != nil {
		t.Fatal(err)
	}
	if p.ciaddr.IsValid() {
		m.ClientIPAddr = p.ciaddr.AsSlice()
	}
	if p.relay.IsValid() {
		m.GatewayIPAddr = p.relay.AsSlice()
		m.UpdateOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(1), []byte("port 7"))))
	}
	if p.requested.IsValid() {
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(p.requested.AsSlice()))
	}
	if p.server.IsValid() {
		m.UpdateOption(dhcpv4.OptServerIdentifier(p.server.AsSlice()))
	}
	return m.ToBytes()
}

const (
	discoverKind = dhcpv4.MessageTypeDiscover
	requestKind  = dhcpv4.MessageTypeRequest
	nothing      = dhcpv4.MessageTypeNone
	offer        = dhcpv4.MessageTypeOffer
	ack          = dhcpv4.MessageTypeAck
	nakKind      = dhcpv4.MessageTypeNak
)

func TestDecide(t *testing.T) {
	own := machine.String()
	offered := lease.Lease{MAC: own, Address: host(100), Expires: noon.Add(time.Minute)}
	cases := []struct {
		name    string
		packet  packet
		leases  []lease.Lease
		reply   dhcpv4.MessageType
		change  change
		address netip.Addr
		expires time.Duration
		reason  string
	}{
		{"DISCOVER", packet{kind: discoverKind, requested: host(103)}, nil, offer, grant, host(103), time.Minute, ""},
		{"DISCOVER, its lease runs", packet{kind: discoverKind}, []lease.Lease{bound(own, host(105), 40*time.Minute)}, offer, grant, host(105), 40 * time.Minute, ""},
		{"DISCOVER, its lease ended", packet{kind: discoverKind}, []lease.Lease{bound(own, host(105), -time.Second)}, offer, grant, host(105), time.Minute, ""},
		{"DISCOVER through our relay", packet{kind: discoverKind, requested: host(103), relay: host(9)}, nil, offer, grant, host(103), time.Minute, ""},
		{"DISCOVER through a strange relay", packet{kind: discoverKind, relay: netip.MustParseAddr("10.1.0.1")}, nil, nothing, keep, netip.Addr{}, 0, "relayed from another subnet"},

		{"selecting", packet{kind: requestKind, server: us, requested: host(100)}, []lease.Lease{offered}, ack, grant, host(100), time.Hour, ""},
		{"selecting, our offer was forgotten", packet{kind: requestKind, server: us, requested: host(100)}, nil, ack, grant, host(100), time.Hour, ""},
		{"selecting another server", packet{kind: requestKind, server: them, requested: host(100)}, []lease.Lease{offered}, nothing, release, host(100), 0, "client chose another server"},
		{"selecting another server, with a lease of ours", packet{kind: requestKind, server: them, requested: host(7)}, []lease.Lease{bound(own, host(100), time.Minute)}, nothing, keep, netip.Addr{}, 0, "client chose another server"},
		{"selecting what was not offered", packet{kind: requestKind, server: us, requested: host(101)}, []lease.Lease{offered}, nakKind, keep, netip.Addr{}, 0, "client holds another address"},
		{"selecting what another has", packet{kind: requestKind, server: us, requested: host(101)}, []lease.Lease{bound(stranger, host(101), time.Minute)}, nakKind, keep, netip.Addr{}, 0, "address held by another machine"},
		{"selecting outside the range", packet{kind: requestKind, server: us, requested: host(7)}, nil, nakKind, keep, netip.Addr{}, 0, "address outside the range"},
		{"selecting nothing", packet{kind: requestKind, server: us}, nil, nothing, keep, netip.Addr{}, 0, "request names no address"},

		{"init-reboot", packet{kind: requestKind, requested: host(100)}, []lease.Lease{bound(own, host(100), time.Minute)}, ack, grant, host(100), time.Hour, ""},
		{"init-reboot, ended and free", packet{kind: requestKind, requested: host(100)}, []lease.Lease{bound(own, host(100), -time.Minute)}, ack, grant, host(100), time.Hour, ""},
		{"init-reboot, unknown and free", packet{kind: requestKind, requested: host(100)}, nil, ack, grant, host(100), time.Hour, ""},
		{"init-reboot, unknown and taken", packet{kind: requestKind, requested: host(100)}, []lease.Lease{bound(stranger, host(100), time.Minute)}, nakKind, keep, netip.Addr{}, 0, "address held by another machine"},
		{"init-reboot, another address", packet{kind: requestKind, requested: host(101)}, []lease.Lease{bound(own, host(100), time.Minute)}, nakKind, keep, netip.Addr{}, 0, "client holds another address"},
		{"init-reboot, another subnet", packet{kind: requestKind, requested: netip.MustParseAddr("192.168.1.5")}, nil, nakKind, keep, netip.Addr{}, 0, "address of another subnet"},
		{"init-reboot, our subnet and not our range", packet{kind: requestKind, requested: host(7)}, nil, nothing, keep, netip.Addr{}, 0, "address not ours to lease"},

		{"renewing", packet{kind: requestKind, ciaddr: host(100)}, []lease.Lease{bound(own, host(100), time.Minute)}, ack, grant, host(100), time.Hour, ""},
		{"renewing what is lost", packet{kind: requestKind, ciaddr: host(100)}, []lease.Lease{bound(stranger, host(100), time.Minute)}, nakKind, keep, netip.Addr{}, 0, "address held by another machine"},
		{"renewing another server's", packet{kind: requestKind, ciaddr: host(7)}, nil, nothing, keep, netip.Addr{}, 0, "address not ours to lease"},
		{"naming nothing", packet{kind: requestKind}, nil, nothing, keep, netip.Addr{}, 0, "request names no address"},

		{"DECLINE", packet{kind: dhcpv4.MessageTypeDecline, server: us, requested: host(100)}, []lease.Lease{bound(own, host(100), time.Minute)}, nothing, decline, host(100), 0, ""},
		{"DECLINE for another server", packet{kind: dhcpv4.MessageTypeDecline, server: them, requested: host(100)}, nil, nothing, keep, netip.Addr{}, 0, "meant for another server"},
		{"RELEASE", packet{kind: dhcpv4.MessageTypeRelease, server: us, ciaddr: host(100)}, []lease.Lease{bound(own, host(100), time.Minute)}, nothing, release, host(100), 0, ""},
		{"RELEASE for nobody", packet{kind: dhcpv4.MessageTypeRelease, ciaddr: host(100)}, nil, nothing, keep, netip.Addr{}, 0, "meant for another server"},
		{"INFORM", packet{kind: dhcpv4.MessageTypeInform, ciaddr: host(7)}, nil, ack, keep, netip.Addr{}, 0, ""},
		{"INFORM from elsewhere", packet{kind: dhcpv4.MessageTypeInform, ciaddr: netip.MustParseAddr("192.168.1.5")}, nil, nothing, keep, netip.Addr{}, 0, "inform from another subnet"},
		{"a server's message", packet{kind: offer}, nil, nothing, keep, netip.Addr{}, 0, "message type not for servers"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, err := parse(c.packet.bytes(t))
			if err != nil {
				t.Fatal(err)
			}
			d := testConfig.decide(r, testTable(c.leases...).View(r.client, noon), noon)
			if d.reply != c.reply || d.change != c.change || d.reason != c.reason || d.lease.Address != c.address {
				t.Errorf("got %s, change %d, %s, %q; want %s, change %d, %s, %q", d.reply, d.change, d.lease.Address, d.reason, c.reply, c.change, c.address, c.reason)
			}
			if d.change == grant && !d.lease.Expires.Equal(noon.Add(c.expires)) {
				t.Errorf("it holds for %s, want %s", d.lease.Expires.Sub(noon), c.expires)
			}
			if wantBound := d.reply == ack && d.change == grant; wantBound && !d.lease.Bound {
				t.Error("an acknowledged lease is not bound")
			}
		})
	}
}

func TestExhausted(t *testing.T) {
	var leases []lease.Lease
	for n := range byte(10) {
		leases = append(leases, bound(net.HardwareAddr{2, 0, 0, 0, 9, n}.String(), host(100+n), time.Hour))
	}
	r, err := parse(packet{kind: discoverKind}.bytes(t))
	if err != nil {
		t.Fatal(err)
	}
	d := testConfig.decide(r, testTable(leases...).View(r.client, noon), noon)
	if d.reply != nothing || d.reason != "no address free" {
		t.Errorf("got %s, %q", d.reply, d.reason)
	}
}

// TestRoute is RFC 2131, section 4.1, line by line.
func TestRoute(t *testing.T) {
	everyone := netip.MustParseAddr("255.255.255.255")
	cases := []struct {
		name     string
		packet   packet
		leases   []lease.Lease
		to       netip.AddrPort
		hardware bool
	}{
		{"no address yet", packet{kind: discoverKind, requested: host(100)}, nil, netip.AddrPortFrom(host(100), 68), true},
		{"asks for broadcast", packet{kind: discoverKind, broadcast: true}, nil, netip.AddrPortFrom(everyone, 68), false},
		{"has an address", packet{kind: requestKind, ciaddr: host(100), broadcast: true}, nil, netip.AddrPortFrom(host(100), 68), false},
		{"NAK", packet{kind: requestKind, ciaddr: netip.MustParseAddr("192.168.1.5")}, nil, netip.AddrPortFrom(everyone, 68), false},
		{"relay", packet{kind: discoverKind, relay: host(9)}, nil, netip.AddrPortFrom(host(9), 67), false},
		{"NAK to a relay", packet{kind: requestKind, relay: host(9), requested: host(100)}, []lease.Lease{bound(stranger, host(100), time.Hour)}, netip.AddrPortFrom(host(9), 67), false},
		{"INFORM", packet{kind: dhcpv4.MessageTypeInform, ciaddr: host(7)}, nil, netip.AddrPortFrom(host(7), 68), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, err := parse(c.packet.bytes(t))
			if err != nil {
				t.Fatal(err)
			}
			p, to, err := testConfig.answer(r, testConfig.decide(r, testTable(c.leases...).View(r.client, noon), noon))
			if err != nil {
				t.Fatal(err)
			}
			if to != (destination{c.to, c.hardware}) {
				t.Errorf("to %+v, want %s, %t", to, c.to, c.hardware)
			}
			if c.packet.relay.IsValid() && (!p.GatewayIPAddr.Equal(net.IP(host(9).AsSlice())) || p.RelayAgentInfo() == nil) {
				t.Error("the relay's address and its option 82 must come back")
			}
			if nak := p.MessageType() == nakKind; nak && c.packet.relay.IsValid() && !p.IsBroadcast() {
				t.Error("a NAK through a relay must ask for broadcast")
			}
			if inform := c.packet.kind == dhcpv4.MessageTypeInform; inform && (p.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || !p.YourIPAddr.IsUnspecified()) {
				t.Error("the answer to an INFORM leases nothing")
			}
		})
	}
}
