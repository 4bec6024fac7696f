package radv

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"slipway/bootsvc/timeline"
)

var card = net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 1}

func TestSolicitor(t *testing.T) {
	header := []byte{133, 0, 0, 0, 0, 0, 0, 0}
	source := append([]byte{1, 1}, card...)
	with := func(parts ...[]byte) (packet []byte) {
		for _, part := range parts {
			packet = append(packet, part...)
		}
		return packet
	}
	for _, test := range []struct {
		name   string
		packet []byte
		want   net.HardwareAddr
	}{
		{"with its source", with(header, source), card},
		{"behind another option", with(header, []byte{14, 1, 0, 0, 0, 0, 0, 0}, source), card},
		{"without options", header, nil},
		{"option of no length", with(header, []byte{1, 0, 1, 2, 3, 4, 5, 6}), nil},
		{"option longer than the packet", with(header, []byte{14, 9, 0, 0, 0, 0, 0, 0}), nil},
		{"cut option", with(header, source[:5]), nil},
		{"another message", with([]byte{134}, header[1:], source), nil},
		{"code that does not exist", with([]byte{133, 1}, header[2:], source), nil},
		{"cut header", header[:6], nil},
		{"nothing", nil, nil},
	} {
		if got := solicitor(test.packet); got.String() != test.want.String() {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestOnlyMachinesThatBootAreAnswered(t *testing.T) {
	now := time.Unix(1000, 0)
	s := New("lo", prometheus.NewRegistry(), slog.New(slog.DiscardHandler), func() time.Time { return now })
	s.Observe(t.Context(), timeline.Event{MAC: card, Name: "dhcp", Asker: timeline.System})
	if s.booting(card) {
		t.Error("an operating system counts as booting")
	}
	firmware := net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 2}
	s.Observe(t.Context(), timeline.Event{MAC: firmware, Name: "dhcp", Asker: timeline.Firmware})
	if !s.booting(firmware) {
		t.Error("firmware that has just asked does not count")
	}
	s.Observe(t.Context(), timeline.Event{MAC: card, Name: "dhcp", Asker: timeline.Loader})
	if !s.booting(card) {
		t.Error("a loader that has just asked does not count")
	}
	now = now.Add(patience + time.Second)
	if s.booting(card) {
		t.Error("a loader of long ago counts")
	}
}

func FuzzSolicitor(f *testing.F) {
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6})
	f.Fuzz(func(t *testing.T, packet []byte) {
		if mac := solicitor(packet); mac != nil && len(mac) != 6 {
			t.Errorf("a source of %d bytes", len(mac))
		}
	})
}
