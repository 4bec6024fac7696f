package vip

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// sample is what tcpdump reads as: 192.0.2.11 > 224.0.0.18: VRRPv3,
// Advertisement, vrid 50, prio 200, intvl 100cs, length 12, addrs: 192.0.2.50
const sample = "3132c80100640000c0000232"

func TestPacket(t *testing.T) {
	want := Advert{VRID: 50, Priority: 200, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.50")}}
	b := want.marshal(middle)
	if got := hex.EncodeToString(b[:6]) + "0000" + hex.EncodeToString(b[8:]); got != sample {
		t.Errorf("got %s, want %s but for the checksum", got, sample)
	}
	got, err := parse(middle, b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	// Worked out by hand: the sum of the words of pseudo-header and packet.
	sum := 0xc000 + 0x020b + 0xe000 + 0x0012 + 0x0000 + 12 + 0x0000 + 112 + 0x3132 + 0xc801 + 0x0064 + 0xc000 + 0x0232
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	if want := []byte{byte(^sum >> 8), byte(^sum)}; !bytes.Equal(b[6:8], want) {
		t.Errorf("checksum %x, want %x", b[6:8], want)
	}
}

func TestParseRefuses(t *testing.T) {
	good := Advert{VRID: 50, Priority: 200, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.50")}}
	change := func(at int, to byte) []byte {
		b := good.marshal(middle)
		b[at] = to
		return b
	}
	none := good
	none.Interval = 0
	for complaint, b := range map[string][]byte{
		"too few":           {0x31, 50},
		"version and type":  change(0, 0x21),
		"virtual router 0":  change(1, 0),
		"with 2 addresses":  change(3, 2),
		"with 0 addresses":  change(3, 0),
		"wrong checksum":    change(2, 255),
		"no interval":       none.marshal(middle),
		"13 bytes with 1 a": append(good.marshal(middle), 0),
	} {
		if _, err := parse(middle, b); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%x: %v, want %q", b, err, complaint)
		}
	}
	if _, err := parse(higher, good.marshal(middle)); err == nil {
		t.Error("a packet of another sender is taken")
	}
	if _, err := parse(netip.IPv6Loopback(), good.marshal(middle)); err == nil {
		t.Error("a packet from IPv6 is taken")
	}
}

// FuzzParse: no packet is a panic, and one that is taken is the same again.
func FuzzParse(f *testing.F) {
	f.Add(Advert{VRID: 1, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{lower, higher}}.marshal(middle))
	f.Add([]byte{0x31, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parse(middle, b)
		if err != nil {
			return
		}
		b[4] &= 0x0f // reserved, ignored
		again, err := parse(middle, a.marshal(middle))
		if err != nil || !reflect.DeepEqual(a, again) {
			t.Errorf("%x: %+v, then %+v, %v", b, a, again, err)
		}
	})
}
