package assign

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
)

// TestVirtualIPsAreToldAsTheyChange: those of all clusters, at once and after each
// change of one.
func TestVirtualIPsAreToldAsTheyChange(t *testing.T) {
	o := made(t, "name: test\nmachines:\n- {id: "+id(9)+", role: control-plane}\n", 9)
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan []netip.Addr), make(chan error)
	go func() {
		ended <- o.RunVirtualIPs(ctx, slog.New(slog.DiscardHandler), func(all []netip.Addr) {
			select {
			case told <- all:
			case <-ctx.Done():
			}
		})
	}()
	await := func(want ...netip.Addr) {
		t.Helper()
		for got := range told {
			if slices.Equal(got, want) {
				return
			}
		}
	}
	await()
	if _, err := o.Create(t.Context(), planes("virtualIP: 10.0.0.99\n", 1)); err != nil {
		t.Fatal(err)
	}
	await(netip.MustParseAddr("10.0.0.99"))
	if _, err := o.Update(t.Context(), planes("virtualIP: 10.0.0.98\n", 1), Leave{}); err != nil {
		t.Fatal(err)
	}
	await(netip.MustParseAddr("10.0.0.98"))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
