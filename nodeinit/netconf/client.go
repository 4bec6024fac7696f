package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// vendorClass tells the DHCP server that a node asks, not its firmware.
const vendorClass = "slipway"

// patience of one exchange: three packets, a second apart. Who waits longer
// asks again from the start.
const (
	tries   = 3
	timeout = time.Second
)

// modifiers are what every request of ours says.
func modifiers() []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(vendorClass)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
			dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionHostName,
			dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute,
			dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue),
	}
}

// firstLease asks on all links at once and returns the first lease.
func firstLease(ctx context.Context, ask []link, log *slog.Logger) (Lease, bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	won := make(chan Lease, len(ask))
	for _, l := range ask {
		wg.Go(func() {
			lease, err := obtain(ctx, l.name, currentAddress(l.name).Addr())
			if err != nil {
				if ctx.Err() == nil {
					log.Warn("no DHCP lease", "link", l.name, "error", err)
				}
				return
			}
			won <- lease
			cancel()
		})
	}
	wg.Wait()
	close(won)
	lease, ok := <-won
	return lease, ok
}

// obtain does DISCOVER, OFFER, REQUEST, ACK on a link. A wanted address is
// asked for; the server decides.
func obtain(ctx context.Context, link string, wanted netip.Addr) (Lease, error) {
	client, err := nclient4.New(link, nclient4.WithTimeout(timeout), nclient4.WithRetry(tries))
	if err != nil {
		return Lease{}, fmt.Errorf("open DHCP client on %s: %w", link, err)
	}
	defer client.Close()
	mods := modifiers()
	if wanted.IsValid() {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(wanted.AsSlice())))
	}
	offer, err := client.DiscoverOffer(ctx, mods...)
	if err != nil {
		return Lease{}, fmt.Errorf("discover DHCP servers on %s: %w", link, err)
	}
	got, err := client.RequestFromOffer(ctx, offer, modifiers()...)
	if err != nil {
		return Lease{}, fmt.Errorf("request %s on %s: %w", offer.YourIPAddr, link, err)
	}
	return leaseFrom(link, got.ACK, time.Now())
}

// errRefused is a DHCPNAK: the server does not let the address be used.
var errRefused = errors.New("the DHCP server refuses the address")

// extend asks for more time: of the lease's own server by unicast, or of any
// server by broadcast.
func extend(ctx context.Context, l Lease, any bool) (Lease, error) {
	request, err := extension(l)
	if err != nil {
		return Lease{}, err
	}
	client, to, err := extensionClient(l, any)
	if err != nil {
		return Lease{}, fmt.Errorf("open DHCP client on %s: %w", l.Link, err)
	}
	defer client.Close()
	answer, err := client.SendAndRead(ctx, to, request, nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak))
	if err != nil {
		return Lease{}, fmt.Errorf("extend the lease of %s on %s: %w", l.Address, l.Link, err)
	}
	if answer.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, fmt.Errorf("extend the lease of %s on %s: %w", l.Address, l.Link, errRefused)
	}
	return leaseFrom(l.Link, answer, time.Now())
}

// extension is the REQUEST of RFC 2131, 4.3.2, for RENEWING and REBINDING:
// the address in ciaddr, neither server identifier nor requested address.
func extension(l Lease) (*dhcpv4.DHCPv4, error) {
	iface, err := net.InterfaceByName(l.Link)
	if err != nil {
		return nil, fmt.Errorf("extend the lease of %s: %w", l.Address, err)
	}
	return dhcpv4.New(dhcpv4.PrependModifiers(modifiers(),
		dhcpv4.WithHwAddr(iface.HardwareAddr), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithClientIP(l.Address.Addr().AsSlice()))...)
}

func extensionClient(l Lease, any bool) (*nclient4.Client, *net.UDPAddr, error) {
	opts := []nclient4.ClientOpt{nclient4.WithTimeout(timeout), nclient4.WithRetry(tries)}
	if any || !l.Server.IsValid() {
		client, err := nclient4.New(l.Link, opts...)
		return client, nclient4.DefaultServers, err
	}
	iface, err := net.InterfaceByName(l.Link)
	if err != nil {
		return nil, nil, err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: l.Address.Addr().AsSlice(), Port: nclient4.ClientPort})
	if err != nil {
		return nil, nil, err
	}
	client, err := nclient4.NewWithConn(conn, iface.HardwareAddr, opts...)
	return client, &net.UDPAddr{IP: l.Server.AsSlice(), Port: nclient4.ServerPort}, err
}
