package host

import (
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/radv"
	"slipway/bootsvc/timeline"
	"slipway/test/netns"
)

// TestRouterSolicitation has Linux's own IPv6 ask for routers, as it does when a link comes
// up: it is answered only when its card is a boot loader's, and it gets no route.
func TestRouterSolicitation(t *testing.T) {
	netns.Require(t)
	const mac = "52:54:00:99:00:61"
	network := netns.New(t, bridgeAddress)
	host := network.Host(mac)
	// The server's address is usable at once, without duplicate detection.
	if out, err := exec.Command("ip", "address", "add", "fe80::1/64", "dev", network.Device, "nodad").CombinedOutput(); err != nil {
		t.Fatalf("give the bridge an address: %v: %s", err, out)
	}
	server := radv.New(network.Device, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(t.Output(), nil)), time.Now)
	running, ctx := errgroup.WithContext(t.Context())
	ready := make(chan struct{})
	running.Go(func() error { return server.Run(ctx, func() { close(ready) }) })
	<-ready

	link(host, "down")
	link(host, "up")
	await(t, "the kernel asks for routers", func() bool { return counter(host, "Icmp6OutRouterSolicits") > 0 })
	if n := counter(host, "Icmp6InRouterAdvertisements"); n != 0 {
		t.Errorf("a card that is no boot loader's was answered %d times", n)
	}
	card, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	server.Observe(ctx, timeline.Event{MAC: card, Name: "dhcp", Asker: timeline.Loader})
	link(host, "down")
	link(host, "up")
	await(t, "the kernel is answered", func() bool { return counter(host, "Icmp6InRouterAdvertisements") > 0 })
	if routes := host.Run("ip", "-6", "route", "show", "default"); strings.TrimSpace(routes) != "" {
		t.Errorf("the answer made a route: %s", routes)
	}
}

// link brings the host's link up or down. When it comes up, the kernel asks at once.
func link(host *netns.Host, state string) {
	host.Run("sh", "-c", "for s in accept_dad=0 router_solicitation_delay=0 accept_ra=1; do echo ${s#*=} >/proc/sys/net/ipv6/conf/eth0/${s%=*}; done")
	host.Run("ip", "link", "set", "eth0", state)
}

// await asks check until it is true.
func await(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !check(); {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for: %s: not within 30 s", what)
		}
	}
}

// counter reads one of the host's IPv6 counters.
func counter(host *netns.Host, name string) (value int) {
	for line := range strings.Lines(host.Run("cat", "/proc/net/snmp6")) {
		if strings.HasPrefix(line, name) {
			_, _ = fmt.Sscan(strings.TrimPrefix(line, name), &value) // stays 0 when it is no number
		}
	}
	return value
}
