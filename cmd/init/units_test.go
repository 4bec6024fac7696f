package main

import (
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"slipway/configs/machine"
	"slipway/nodeinit/logring"
	"slipway/nodeinit/supervise"
)

// TestAllUnitsCanStart: what any machine runs, base units and those of its
// config together, is a sound list.
func TestAllUnitsCanStart(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, want := range map[string]string{"machine-control-plane": "etcd", "machine-worker": "kubelet"} {
		data, err := os.ReadFile("../../configs/examples/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		config, err := machine.Parse(data, name)
		if err != nil {
			t.Fatal(err)
		}
		identity := machine.Identity{Hostname: config.Hostname, Address: netip.MustParseAddr("192.0.2.10"), Link: "eth0"}
		units := append(baseUnits(log, logring.Open(""), supervise.New(log), nil), planUnits(config, identity)...)
		if err := supervise.Check(units); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !has(units, want) {
			t.Errorf("%s: no unit %s", name, want)
		}
	}
}

func has(units []supervise.Unit, name string) bool {
	for _, u := range units {
		if u.Name == name {
			return true
		}
	}
	return false
}
