package main

import (
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"slipway/configs/machine"
	"slipway/nodeinit/early"
	"slipway/nodeinit/lifecycle"
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
		for _, booted := range []early.Booted{{}, {Slot: "a", Disk: "vda"}} {
			n := &node{log: log, logs: logring.Open(""), units: supervise.New(log), watchdog: supervise.Unit{Name: "watchdog", Service: once((&lifecycle.Watchdog{}).Run)}, booted: booted}
			units := append(n.baseUnits(), planUnits(config, identity)...)
			if err := supervise.Check(units); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !has(units, want) || has(units, "trial") != (booted.Slot != "") {
				t.Errorf("%s booted from %q: not the units that it should have", name, booted.Slot)
			}
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
