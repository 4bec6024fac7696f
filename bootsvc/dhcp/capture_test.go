package dhcp

import (
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"slipway/bootsvc/lease"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// testConfig is the network in which the packets were captured.
var testConfig = Config{
	Interface: "eth0",
	Address:   netip.MustParseAddr("10.99.0.1"),
	Subnet:    netip.MustParsePrefix("10.99.0.0/24"),
	Router:    netip.MustParseAddr("10.99.0.254"),
	DNS:       []netip.Addr{netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")},
	LeaseTime: time.Hour,
	OfferTime: time.Minute,
	HTTP:      "http://10.99.0.1",
}

func testTable(leases ...lease.Lease) *lease.Table {
	return lease.NewTable(lease.Pool{First: netip.MustParseAddr("10.99.0.100"), Last: netip.MustParseAddr("10.99.0.109")}, leases)
}

// capture reads a packet of testdata: hexadecimal, and lines of comment.
func capture(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.TrimSpace(line))
		}
	}
	packet, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return packet
}

// TestCaptures takes what real clients sent, captured by the host tier with
// SLIPWAY_CAPTURE, through parse, decide and answer.
func TestCaptures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatal("no captures", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hex"), func(t *testing.T) {
			got := story(t, capture(t, file))
			golden := strings.TrimSuffix(file, ".hex") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// story tells what becomes of a packet when the table is empty.
func story(t *testing.T, packet []byte) string {
	t.Helper()
	r, err := parse(packet)
	if err != nil {
		return "refused: " + err.Error() + "\n"
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s from %s, %s, wants %s, UUID %q, client ID %s\n", r.kind, r.client.MAC, r.firmware, r.client.Wants, r.firmware.UUID, r.client.ClientID)
	d := testConfig.decide(r, testTable().View(r.client, noon), noon)
	if d.reply == dhcpv4.MessageTypeNone {
		fmt.Fprintf(&out, "no answer; change %d; %s\n", d.change, d.reason)
		return out.String()
	}
	p, to, err := testConfig.answer(r, d)
	if err != nil {
		t.Fatal(err)
	}
	again, err := dhcpv4.FromBytes(p.ToBytes())
	if err != nil {
		t.Fatal("our own answer cannot be read:", err)
	}
	fmt.Fprintf(&out, "to %s, by hardware address: %t; %d bytes\n%s", to.to, to.hardware, len(p.ToBytes()), again.Summary())
	return out.String()
}
