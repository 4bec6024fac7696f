package netconf

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mac(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func TestChoose(t *testing.T) {
	if !strings.HasSuffix(nextOthers, bootPatience.String()) {
		t.Errorf("%q, but bootPatience is %s", nextOthers, bootPatience)
	}
	boot := mac("52:54:00:00:00:02")
	eth0 := link{name: "eth0", mac: mac("52:54:00:00:00:01"), physical: true, up: true, carrier: true}
	eth1 := link{name: "eth1", mac: boot, physical: true, up: true, carrier: true}
	down := link{name: "eth1", mac: boot, physical: true}
	dark := link{name: "eth1", mac: boot, physical: true, up: true}
	bridge := link{name: "cni0", mac: mac("52:54:00:00:00:09"), up: true, carrier: true}

	for _, tt := range []struct {
		name    string
		links   []link
		boot    net.HardwareAddr
		anyway  bool
		up, ask []string
		waiting string
	}{
		{name: "nothing yet", waiting: "a network interface"},
		{name: "no driver for the boot interface", links: []link{eth0}, boot: boot,
			waiting: "the network interface 52:54:00:00:00:02, from which the machine booted"},
		{name: "it is missed for too long", links: []link{eth0}, boot: boot, anyway: true,
			ask: []string{"eth0"}, waiting: "a DHCP lease on eth0"},
		{name: "the boot interface alone", links: []link{eth0, eth1}, boot: boot,
			ask: []string{"eth1"}, waiting: "a DHCP lease on eth1"},
		{name: "no answer there for too long", links: []link{eth0, eth1}, boot: boot, anyway: true,
			ask: []string{"eth0", "eth1"}, waiting: "a DHCP lease on eth0, eth1"},
		{name: "bring it up first", links: []link{eth0, down}, boot: boot,
			up: []string{"eth1"}, waiting: "a carrier on eth1"},
		{name: "no cable", links: []link{eth0, dark}, boot: boot, waiting: "a carrier on eth1"},
		{name: "boot interface unknown", links: []link{eth0, eth1},
			ask: []string{"eth0", "eth1"}, waiting: "a DHCP lease on eth0, eth1"},
		{name: "one of two has a carrier", links: []link{eth0, dark}, ask: []string{"eth0"}, waiting: "a DHCP lease on eth0"},
		{name: "bridges are no candidates", links: []link{bridge}, waiting: "a network interface"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := choose(tt.links, tt.boot, tt.anyway)
			var ask []string
			for _, l := range got.ask {
				ask = append(ask, l.name)
			}
			if diff := cmp.Diff(tt.ask, ask); diff != "" {
				t.Errorf("ask (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.up, got.up); diff != "" {
				t.Errorf("up (-want +got):\n%s", diff)
			}
			if got.waiting != tt.waiting {
				t.Errorf("waiting for %q, want %q", got.waiting, tt.waiting)
			}
			if others := tt.boot != nil && !tt.anyway; (got.next == nextOthers) != others {
				t.Errorf("next it %s", got.next)
			}
		})
	}
}
