package vip

import (
	"context"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"slipway/nodeinit/apiproxy"
)

var file = File{VirtualIP: netip.MustParseAddr("192.0.2.50"), Link: "eth0", Address: middle, Peers: []netip.Addr{lower, higher}}

func TestAccept(t *testing.T) {
	r := Router{File: file}
	good := Advert{VRID: 50, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{file.VirtualIP}}
	if heard, err := r.accept(lower, 255, good.marshal(lower)); err != nil || heard != (Heard{lower, 100, time.Second}) {
		t.Errorf("%+v, %v", heard, err)
	}
	otherRouter, otherAddress := good, good
	otherRouter.VRID = 51
	otherAddress.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.51")}
	stranger := netip.MustParseAddr("192.0.2.99")
	for complaint, test := range map[string]struct {
		from   netip.Addr
		hops   int
		advert Advert
	}{
		"from another network":                 {lower, 254, good},
		"not one of the other control":         {stranger, 255, good},
		"about virtual router 51":              {lower, 255, otherRouter},
		"about virtual router 50, [192.0.2.51": {lower, 255, otherAddress},
	} {
		if _, err := r.accept(test.from, test.hops, test.advert.marshal(test.from)); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%+v: %v, want %q", test, err, complaint)
		}
	}
	if _, err := r.accept(middle, 255, good.marshal(middle)); err == nil {
		t.Error("it listens to itself")
	}
}

func TestParseFile(t *testing.T) {
	encoded, err := file.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(encoded.Data)
	if err != nil || got.VRID() != 50 || len(got.Peers) != 2 || got.Address != middle {
		t.Errorf("%+v, %v", got, err)
	}
	for text, complaint := range map[string]string{
		`{}`: "want virtualIP",
		`{"virtualIP":"192.0.2.11","address":"192.0.2.11","link":"eth0"}`:                        "own address",
		`{"virtualIP":"192.0.2.10","address":"192.0.2.11","link":"eth0","peers":["192.0.2.10"]}`: "own address",
		`{"vip":1}`: "unknown field",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%s: %v, want %q", text, err, complaint)
		}
	}
	if zero := (File{VirtualIP: netip.MustParseAddr("10.1.2.0")}); zero.VRID() != 255 {
		t.Errorf("virtual router of %s: %d", zero.VirtualIP, zero.VRID())
	}
}

func TestPriority(t *testing.T) {
	for _, test := range []struct {
		isReady, isServing apiproxy.Result
		want               uint8
	}{
		{apiproxy.OK, apiproxy.OK, 200},
		{apiproxy.OK, apiproxy.Slow, 200},
		{apiproxy.NotReady, apiproxy.OK, 100},
		{apiproxy.Slow, apiproxy.OK, 100}, // it waits for an etcd without quorum
		{apiproxy.Slow, apiproxy.Slow, 1},
		{apiproxy.NotReady, apiproxy.NotReady, 0}, // it is ending
		{apiproxy.Refused, apiproxy.Refused, 0},
		{apiproxy.Silent, apiproxy.Silent, 0}, // something else listens there
	} {
		if got := priority(test.isReady, test.isServing); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
	for _, test := range []struct{ looks, want []uint8 }{
		{[]uint8{0, 100, 200}, []uint8{0, 100, 200}},
		{[]uint8{200, 100, 200, 100, 100}, []uint8{200, 200, 200, 200, 100}},
		{[]uint8{200, 0, 0, 0}, []uint8{200, 200, 0, 0}},
		{[]uint8{200, 100, 0}, []uint8{200, 200, 0}},
	} {
		var o opinion
		for i, seen := range test.looks {
			if o = o.look(seen); o.priority != test.want[i] {
				t.Errorf("look %d of %v: %d, want %d", i, test.looks, o.priority, test.want[i])
			}
		}
	}
}

func TestGratuitousARP(t *testing.T) {
	mac, err := net.ParseMAC("52:54:00:77:00:01")
	if err != nil {
		t.Fatal(err)
	}
	const want = "ffffffffffff" + "525400770001" + "0806" + "0001" + "0800" + "0604" + "0001" +
		"525400770001" + "c0000232" + "000000000000" + "c0000232"
	if got := hex.EncodeToString(gratuitous(mac, file.VirtualIP)); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestLooks: an API server that is ready is asked one thing at a time; once it
// is not, both from the next look on.
func TestLooks(t *testing.T) {
	isReady, asked := apiproxy.OK, 0
	look := looker(
		func(context.Context) apiproxy.Result { return isReady },
		func(context.Context) apiproxy.Result { asked++; return apiproxy.OK })
	for i, test := range []struct {
		isReady apiproxy.Result
		want    uint8
		asked   int // what it can still do, so far
	}{
		{apiproxy.NotReady, Serving, 1}, {apiproxy.OK, Ready, 2}, {apiproxy.OK, Ready, 2},
		{apiproxy.NotReady, out, 2}, {apiproxy.NotReady, Serving, 3}, {apiproxy.OK, Ready, 4}, {apiproxy.OK, Ready, 4},
	} {
		isReady = test.isReady
		if got := look(t.Context()); got != test.want || asked != test.asked {
			t.Errorf("look %d: %d after %d questions, want %d after %d", i, got, asked, test.want, test.asked)
		}
	}
}
