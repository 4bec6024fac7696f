package serve

import (
	"strings"
	"testing"

	"slipway/bootsvc/inventory"
	"slipway/test/netns"
)

// firmware boots a host by the network as a BIOS and its iPXE do, and returns the
// script that it is given.
func (r *rack) firmware(h *netns.Host) string {
	r.t.Helper()
	bios := []string{"-i", "eth0", "-s", "/bin/true", "-q", "-n", "-t", "3", "-T", "2", "-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000"}
	h.Run("udhcpc", bios...)
	h.Run("udhcpc", append(bios, "-x", "0x4d:69505845", "-x", "0xaf:130101")...) // iPXE, with HTTP
	return h.Run("curl", "-sS", "http://10.99.0.1/boot.ipxe")
}

// wantScript wants a machine to be told one thing of three.
func (r *rack) wantScript(script, want string) {
	r.t.Helper()
	for what, line := range map[string]string{"disk": "sanboot", "hold": "Slipway holds this machine", "installer": "kernel --name kernel"} {
		if strings.Contains(script, line) != (what == want) {
			r.t.Errorf("it is to get the %s, and is told\n%s", want, script)
			return
		}
	}
}

// TestHeld: an installed machine that comes back by the network over and over is
// held, people are shown why and what to do, and what they say is done.
func TestHeld(t *testing.T) {
	r := newRack(t)
	r.serve("--approve", "any")
	host := r.Host(mac)
	m := r.play(host, true)
	m.says("approved")
	m.told("installed", "held false, let go false")
	for range inventory.MaxReturns {
		r.wantScript(r.firmware(host), "disk")
	}
	if list := r.slipway(0, "machines", "list"); !strings.Contains(list, "its disk to boot") {
		t.Errorf("until it is held it is shown as\n%s", list)
	}
	r.wantScript(r.firmware(host), "hold")
	for _, command := range []string{"list", "show"} {
		if shown := r.slipway(0, "machines", command); !strings.Contains(shown, "came back by the network 6 times") || !strings.Contains(shown, "slipway machines boot "+machineID+" --from disk") {
			t.Errorf("slipway machines %s shows\n%s", command, shown)
		}
	}
	if shown := r.slipway(0, "machines", "show", "-o", "json"); !strings.Contains(shown, `"next": "hold"`) {
		t.Errorf("as JSON it is\n%s", shown)
	}
	r.slipway(0, "machines", "boot", machineID, "--from", "disk")
	r.wantScript(r.firmware(host), "disk")
	m.told("from disk", "held false, let go false")
	r.slipway(0, "machines", "boot", machineID, "--from", "installer")
	if script := r.firmware(host); !strings.Contains(script, "slipway.install=anew") {
		t.Errorf("to be installed anew, it is told\n%s", script)
	}

	// It installed itself anew, with another key, and nobody heard of it.
	again := r.play(host, true)
	again.says("approved")
	script := r.firmware(host)
	if r.wantScript(script, "installer"); strings.Contains(script, "slipway.install=anew") {
		t.Error("it is told to wipe what it installed")
	}
	again.told("found", "held false, let go false")
	r.wantScript(r.firmware(host), "disk")
	m.told("from disk", "permission_denied")
}
