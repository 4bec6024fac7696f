package agent

import (
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	const pin = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	const good = "console=ttyS0 slipway.server=https://10.0.0.1:8443 slipway.ca=" + pin + " slipway.machine=52:54:00:AB:cd:56 quiet\n"
	args, err := ParseArgs(good)
	if err != nil {
		t.Fatal(err)
	}
	if args.Server.String() != "https://10.0.0.1:8443" || args.Machine != "52-54-00-ab-cd-56" || args.CA[0] != 0x2c || args.MAC().String() != "52:54:00:ab:cd:56" {
		t.Errorf("got %+v", args)
	}
	again, err := ParseArgs(good + " slipway.server=https://[fd00::1]:8443/")
	if err != nil || again.Server.Hostname() != "fd00::1" {
		t.Errorf("an argument that stands twice: %+v, %v", again, err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{good, "quiet", "slipway.server is missing"},
		{good, "quiet", "slipway.ca is missing"},
		{good, "quiet", "slipway.machine is missing"},
		{"https:", "http:", "slipway.server=http://10.0.0.1:8443 is not https://HOST:PORT"},
		{":8443", "", "is not https://HOST:PORT"},
		{":8443", ":8443/x", "is not https://HOST:PORT"},
		{"10.0.0.1", "root@10.0.0.1", "is not https://HOST:PORT"},
		{pin, pin[2:], "is not a SHA-256"},
		{pin, "x" + pin[1:], "is not a SHA-256"},
		{"52:54:00:AB:cd:56", "${net0/mac:hexhyp}", "slipway.machine=${net0/mac:hexhyp}: read machine ID"},
	} {
		_, err := ParseArgs(strings.Replace(good, tt.old, tt.new, 1))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("with %q for %q: %v, want %q", tt.new, tt.old, err, tt.want)
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add("slipway.server=https://10.0.0.1:8443 slipway.machine=52:54:00:AB:cd:56")
	f.Fuzz(func(t *testing.T, cmdline string) {
		if args, err := ParseArgs(cmdline); err == nil && (args.Server.Scheme != "https" || args.MAC() == nil) {
			t.Errorf("%q gave %+v", cmdline, args)
		}
	})
}
