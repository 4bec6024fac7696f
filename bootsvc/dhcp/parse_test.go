package dhcp

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestParseRefuses(t *testing.T) {
	change := func(f func(*dhcpv4.DHCPv4)) []byte {
		p, err := dhcpv4.FromBytes(packet{kind: discoverKind}.bytes(t))
		if err != nil {
			t.Fatal(err)
		}
		f(p)
		return p.ToBytes()
	}
	good := packet{kind: discoverKind}.bytes(t)
	cases := []struct {
		name   string
		packet []byte
		want   error
	}{
		{"good", good, nil},
		{"empty", nil, errMalformed},
		{"short", good[:200], errMalformed},
		{"cut off in its options", good[:242], errMalformed},
		{"too long for a frame", append(good, make([]byte, 1300)...), errMalformed},
		{"no magic cookie", bytes.Replace(good, []byte{99, 130, 83, 99}, []byte{0, 0, 0, 0}, 1), errMalformed},
		{"a reply", change(func(p *dhcpv4.DHCPv4) { p.OpCode = dhcpv4.OpcodeBootReply }), errReply},
		{"token ring", change(func(p *dhcpv4.DHCPv4) { p.HWType = 6 }), errHardware},
		{"long hardware address", change(func(p *dhcpv4.DHCPv4) { p.ClientHWAddr = make([]byte, 16) }), errHardware},
		{"no hardware address", change(func(p *dhcpv4.DHCPv4) { p.ClientHWAddr = make([]byte, 6) }), errHardware},
		{"broadcast hardware address", change(func(p *dhcpv4.DHCPv4) { p.ClientHWAddr = bytes.Repeat([]byte{255}, 6) }), errHardware},
		{"BOOTP", change(func(p *dhcpv4.DHCPv4) { p.DeleteOption(dhcpv4.OptionDHCPMessageType) }), errBOOTP},
		{"client identifier in pieces", change(func(p *dhcpv4.DHCPv4) {
			p.UpdateOption(dhcpv4.OptClientIdentifier(make([]byte, 300)))
		}), errLong},
		{"relay option in pieces", change(func(p *dhcpv4.DHCPv4) {
			p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, make([]byte, 300)))
		}), errLong},
	}
	for _, c := range cases {
		if _, err := parse(c.packet); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"node-1": "node-1", "a\x1b[31m": "a", "\n": "", "ä": ""} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) is %q, want %q", in, got, want)
		}
	}
}

// FuzzDHCP takes any bytes through parse, decide and answer. Whatever comes
// out must be a packet that a client can read and that fits a frame.
func FuzzDHCP(f *testing.F) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		f.Fatal("no captures", err)
	}
	for _, file := range files {
		f.Add(capture(f, file))
	}
	table := testTable(bound(machine.String(), host(100), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parse(b)
		if err != nil {
			return
		}
		d := testConfig.decide(r, table.View(r.client, noon), noon)
		if d.reply == dhcpv4.MessageTypeNone {
			return
		}
		p, to, err := testConfig.answer(r, d)
		if err != nil {
			t.Fatal(err)
		}
		out := p.ToBytes()
		if len(out) > 1472 || !to.to.IsValid() {
			t.Fatalf("%d bytes to %s", len(out), to.to)
		}
		if _, err := dhcpv4.FromBytes(out); err != nil {
			t.Fatal("our own answer cannot be read:", err)
		}
	})
}
