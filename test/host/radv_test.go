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
	netns.Require(t, "ping")
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

	asked, answered := solicit(t, host, 1)
	if asked == 0 || answered != 0 {
		t.Errorf("a card that is no boot loader's: asked %d times, answered %d times", asked, answered)
	}
	card, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	server.Observe(ctx, timeline.Event{MAC: card, Name: "dhcp", Asker: timeline.Loader})
	if _, answered = solicit(t, host, 2); answered == 0 {
		t.Error("a boot loader's card was not answered")
	}
	if routes := host.Run("ip", "-6", "route", "show", "default"); strings.TrimSpace(routes) != "" {
		t.Errorf("the answer made a route: %s", routes)
	}
}

// solicit brings the host's link down and up, waits until its kernel has asked for routers
// more than seen times in all, and for the answer to a ping, which comes after any
// advertisement. It returns how often the kernel has asked and has been answered.
func solicit(t *testing.T, host *netns.Host, seen int) (asked, answered int) {
	t.Helper()
	host.Run("sh", "-c", "for s in accept_dad=0 router_solicitation_delay=0 accept_ra=1; do echo ${s#*=} >/proc/sys/net/ipv6/conf/eth0/${s%=*}; done")
	host.Run("ip", "link", "set", "eth0", "down")
	host.Run("ip", "link", "set", "eth0", "up")
	for deadline := time.Now().Add(20 * time.Second); asked < seen; {
		if time.Now().After(deadline) {
			t.Fatalf("the kernel has asked for routers %d times, want %d", asked, seen)
		}
		host.Run("ping", "-6", "-c", "1", "-W", "5", "-I", "eth0", "fe80::1")
		counters := host.Run("cat", "/proc/net/snmp6")
		asked, answered = counter(counters, "Icmp6OutRouterSolicits"), counter(counters, "Icmp6InRouterAdvertisements")
	}
	return asked, answered
}

func counter(text, name string) (value int) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name) {
			_, _ = fmt.Sscan(strings.TrimPrefix(line, name), &value) // stays 0 when it is no number
		}
	}
	return value
}
