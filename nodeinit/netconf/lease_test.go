package netconf

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func ack(t *testing.T, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 11)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(3600),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))),
	}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLeaseFrom(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	plain := Lease{
		Link: "eth0", Address: netip.MustParsePrefix("10.0.0.11/24"), Server: netip.MustParseAddr("10.0.0.1"),
		Since: now, Duration: time.Hour, Renewal: 30 * time.Minute, Rebind: 52*time.Minute + 30*time.Second,
	}
	with := func(change func(*Lease)) Lease { l := plain; change(&l); return l }
	for _, tt := range []struct {
		name string
		ack  *dhcpv4.DHCPv4
		want Lease
	}{
		{"plain", ack(t), plain},
		{"everything", ack(t, dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254)), dhcpv4.WithDNS(net.IPv4(10, 0, 0, 2)),
			dhcpv4.WithOption(dhcpv4.OptDomainName("rack.test")), dhcpv4.WithOption(dhcpv4.OptHostName("n1")),
			dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x23, 0x28})), with(func(l *Lease) {
			l.Router, l.DNS = netip.MustParseAddr("10.0.0.254"), []netip.Addr{netip.MustParseAddr("10.0.0.2")}
			l.Domain, l.Hostname, l.MTU = "rack.test", "n1", 9000
		})},
		{"classless routes replace the router", ack(t, dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254)),
			dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 9, 0, 0), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4(10, 0, 0, 7)},
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: net.IPv4(10, 0, 0, 8)},
			))), with(func(l *Lease) {
			l.Router = netip.MustParseAddr("10.0.0.8")
			l.Routes = []Route{{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParseAddr("10.0.0.7")}}
		})},
		{"T1 after T2", ack(t, dhcpv4.WithGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 14, 0})), plain},
		{"a lease of no time", ack(t, dhcpv4.WithLeaseTime(0)), with(func(l *Lease) {
			l.Duration, l.Renewal, l.Rebind = time.Minute, 30*time.Second, 52*time.Second+500*time.Millisecond
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := leaseFrom("eth0", tt.ack, now)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, byValue); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLeaseFromRefuses(t *testing.T) {
	noAddress := ack(t, dhcpv4.WithYourIP(net.IPv4zero))
	noMask := ack(t)
	noMask.Options.Del(dhcpv4.OptionSubnetMask)
	for name, packet := range map[string]*dhcpv4.DHCPv4{"no address": noAddress, "no mask": noMask} {
		if l, err := leaseFrom("eth0", packet, time.Now()); err == nil {
			t.Errorf("%s: %+v, want an error", name, l)
		}
	}
}

func TestDue(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	l := Lease{Since: start, Duration: 80 * time.Minute, Renewal: 40 * time.Minute, Rebind: 70 * time.Minute}
	for _, tt := range []struct {
		age   time.Duration
		what  action
		again time.Duration
	}{
		{0, hold, 40 * time.Minute},
		{39 * time.Minute, hold, time.Minute},
		{40 * time.Minute, renew, 15 * time.Minute},
		{69 * time.Minute, renew, time.Minute},
		{70*time.Minute - time.Second, renew, time.Second},
		{70 * time.Minute, rebind, 5 * time.Minute},
		{80 * time.Minute, discover, time.Minute},
		{800 * time.Minute, discover, time.Minute},
	} {
		what, again := l.due(start.Add(tt.age))
		if what != tt.what || again != tt.again {
			t.Errorf("after %s: %s, again in %s; want %s in %s", tt.age, what, again, tt.what, tt.again)
		}
	}
	if what, again := ended(l).due(start); what != discover || again != time.Minute {
		t.Errorf("ended lease: %s in %s", what, again)
	}
}

func TestResolvConf(t *testing.T) {
	dns := []netip.Addr{}
	for _, s := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		dns = append(dns, netip.MustParseAddr(s))
	}
	got := resolvConf(Lease{Server: dns[0], DNS: dns, Domain: "rack.test"})
	want := "# from the DHCP server 10.0.0.1\nsearch rack.test\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	hostile := resolvConf(Lease{Server: dns[0], Domain: "x\nnameserver 6.6.6.6"})
	if want := "# from the DHCP server 10.0.0.1\n"; hostile != want {
		t.Errorf("a domain with a line break: %q", hostile)
	}
}

func TestHosts(t *testing.T) {
	got := hosts("demo-cp-1", netip.MustParseAddr("10.0.0.11"))
	want := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.0.0.11 demo-cp-1\n"
	if got != want {
		t.Errorf("got %q", got)
	}
}

func TestLastLease(t *testing.T) {
	last := &Lease{Link: "eth1", Address: netip.MustParsePrefix("192.0.2.7/24"), Duration: time.Hour}
	asked := []link{{name: "eth0"}, {name: "eth1"}}
	for _, tt := range []struct {
		last   *Lease
		asked  []link
		waited time.Duration
		want   bool
	}{
		{nil, asked, time.Hour, false},
		{last, asked, time.Second, false},
		{last, asked[:1], time.Hour, false},
		{last, asked, time.Minute, true},
	} {
		got, ok := (&Network{Config{Last: tt.last}}).lastAgain(tt.asked, tt.waited)
		if ok != tt.want || ok && (got.Address != last.Address || got.Duration != 0) {
			t.Errorf("%v after %s: %v, %t", tt.asked, tt.waited, got, ok)
		}
	}
}
