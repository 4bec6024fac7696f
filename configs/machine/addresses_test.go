package machine

import (
	"net/netip"
	"testing"
)

func TestServiceAddresses(t *testing.T) {
	tests := map[string]struct{ api, dns string }{
		"10.96.0.0/16":     {"10.96.0.1", "10.96.0.10"},
		"192.0.2.240/28":   {"192.0.2.241", "192.0.2.250"},
		"198.51.100.77/24": {"198.51.100.1", "198.51.100.10"}, // host bits are dropped
	}
	for subnet, want := range tests {
		c := Cluster{ServiceSubnet: netip.MustParsePrefix(subnet)}
		if got := c.APIAddress().String(); got != want.api {
			t.Errorf("APIAddress in %s = %s, want %s", subnet, got, want.api)
		}
		if got := c.DNSAddress().String(); got != want.dns {
			t.Errorf("DNSAddress in %s = %s, want %s", subnet, got, want.dns)
		}
	}
}
