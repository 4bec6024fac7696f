package host

import (
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

// TestRouterSolicitation has a stranger's client ask for IPv6 routers: it hears that there is
// none, and only when it is a boot loader's card that asks.
func TestRouterSolicitation(t *testing.T) {
	netns.Require(t, "rdisc6")
	const mac = "52:54:00:99:00:61"
	network := netns.New(t, bridgeAddress)
	host := network.Host(mac)
	// Addresses that are usable at once, without the kernel's own duplicate detection.
	host.Run("ip", "address", "add", "fe80::61/64", "dev", "eth0", "nodad")
	if out, err := exec.Command("ip", "address", "add", "fe80::1/64", "dev", network.Device, "nodad").CombinedOutput(); err != nil {
		t.Fatalf("give the bridge an address: %v: %s", err, out)
	}
	server := radv.New(network.Device, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), time.Now)
	running, ctx := errgroup.WithContext(t.Context())
	ready := make(chan struct{})
	running.Go(func() error { return server.Run(ctx, func() { close(ready) }) })
	<-ready

	ask := func() string {
		out, err := host.Try("rdisc6", "-1", "-r", "2", "-w", "500", "eth0")
		t.Logf("rdisc6: %v\n%s", err, out)
		return out
	}
	if out := ask(); strings.Contains(out, "Router lifetime") {
		t.Errorf("a card that is no boot loader's was answered:\n%s", out)
	}
	card, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	server.Observe(ctx, timeline.Event{MAC: card, Name: "dhcp", Asker: timeline.Loader})
	out := ask()
	for _, want := range []string{"Router lifetime           :            0", "Stateful address conf.    :           No", "Stateful other conf.      :           No"} {
		if !strings.Contains(out, want) {
			t.Errorf("the answer lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "Prefix") {
		t.Errorf("the answer has a prefix:\n%s", out)
	}
}
