package agent

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestOwnMachine(t *testing.T) {
	root := fstest.MapFS{}
	for name, card := range map[string]string{
		"eth0": "52:54:00:00:00:09 1 device", "eth1": "52:54:00:00:00:02 1 device", "lo": "00:00:00:00:00:00 772 ",
		"br0": "02:00:00:00:00:01 1 ", "ib0": "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01 32 device", "off": "00:00:00:00:00:00 1 device",
	} {
		fields := strings.Split(card, " ")
		root["sys/class/net/"+name+"/address"] = &fstest.MapFile{Data: []byte(fields[0] + "\n")}
		root["sys/class/net/"+name+"/type"] = &fstest.MapFile{Data: []byte(fields[1] + "\n")}
		if fields[2] != "" {
			root["sys/class/net/"+name+"/device/vendor"] = &fstest.MapFile{}
		}
	}
	const server = "quiet slipway.server=https://10.0.0.1:8443"
	for _, tt := range []struct {
		name, cmdline, want string
		root                fstest.MapFS
	}{
		{"from a CD", server + "\n", server + " slipway.machine=52-54-00-00-00-02", root},
		{"from the network", server + " slipway.machine=52-54-00-00-00-09", server + " slipway.machine=52-54-00-00-00-09", root},
		{"from its disk", "quiet slipway.root=0123", "quiet slipway.root=0123", root},
		{"no card yet", server, server, fstest.MapFS{}},
	} {
		if got := ownMachine(tt.cmdline, tt.root); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
