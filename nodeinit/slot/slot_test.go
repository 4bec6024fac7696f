package slot

import (
	"errors"
	"testing"

	"slipway/configs/disklayout"
)

const (
	a = disklayout.SlotA
	b = disklayout.SlotB
)

func TestTransitions(t *testing.T) {
	var (
		fresh   = Slots{Good, Empty, a}
		filled  = Slots{Good, Failed, a}
		armed   = Slots{Good, Trying, b}
		updated = Slots{Good, Good, b}
		back    = Slots{Trying, Good, a}
	)
	booted := func(s Slots) (Slots, error) { s, _ = s.Booted(); return s, nil }
	of := func(f func(Slots, disklayout.Slot) (Slots, error), n disklayout.Slot) func(Slots) (Slots, error) {
		return func(s Slots) (Slots, error) { return f(s, n) }
	}
	for _, tt := range []struct {
		name     string
		from     Slots
		do       func(Slots) (Slots, error)
		want     Slots
		refused  bool
		fallback bool // refused because nothing else is good
	}{
		{name: "install: filled", from: Blank(), do: of(Slots.Filled, a), want: Slots{Failed, Empty, a}},
		{name: "install: good", from: Slots{Failed, Empty, a}, do: of(Slots.MarkedGood, a), want: fresh},
		{name: "upgrade: filled", from: fresh, do: of(Slots.Filled, b), want: filled},
		{name: "upgrade: armed", from: filled, do: of(Slots.Armed, b), want: armed},
		{name: "upgrade: booted", from: armed, do: booted, want: filled},
		{name: "upgrade: good", from: filled, do: of(Slots.MarkedGood, b), want: updated},
		{name: "a boot changes nothing", from: updated, do: booted, want: updated},
		{name: "upgrade: cleared", from: updated, do: of(Slots.Cleared, a), want: Slots{Empty, Good, b}},
		{name: "rollback", from: updated, do: of(Slots.RolledBack, b), want: back},
		{name: "rollback: booted", from: back, do: booted, want: Slots{Failed, Good, b}},
		{name: "rollback: good", from: Slots{Failed, Good, b}, do: of(Slots.MarkedGood, a), want: Slots{Good, Good, a}},
		{name: "damage", from: updated, do: of(Slots.MarkedFailed, b), want: Slots{Good, Failed, a}},
		{name: "damage in the only one", from: fresh, do: of(Slots.MarkedFailed, a), want: Slots{Failed, Empty, a}},
		{name: "clear the only good one", from: filled, do: of(Slots.Cleared, a), refused: true, fallback: true},
		{name: "arm without another", from: Slots{Failed, Failed, a}, do: of(Slots.Armed, b), refused: true, fallback: true},
		{name: "arm the only good one", from: fresh, do: of(Slots.Armed, a), refused: true, fallback: true},
		{name: "arm an empty one", from: fresh, do: of(Slots.Armed, b), refused: true},
		{name: "fill a good one", from: fresh, do: of(Slots.Filled, a), refused: true},
		{name: "fill an armed one", from: armed, do: of(Slots.Filled, b), refused: true},
		{name: "roll back to nothing", from: fresh, do: of(Slots.RolledBack, a), refused: true},
		{name: "roll back to a failed one", from: filled, do: of(Slots.RolledBack, a), refused: true},
		{name: "empty is not good", from: fresh, do: of(Slots.MarkedGood, b), refused: true},
		{name: "empty has not failed", from: fresh, do: of(Slots.MarkedFailed, b), refused: true},
	} {
		got, err := tt.do(tt.from)
		switch {
		case tt.refused:
			if err == nil || errors.Is(err, ErrNoFallback) != tt.fallback || got != tt.from {
				t.Errorf("%s: got %+v, error %v", tt.name, got, err)
			}
		case err != nil || got != tt.want:
			t.Errorf("%s: got %+v, want %+v, error %v", tt.name, got, tt.want, err)
		}
	}
}

func TestKernelImageNames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state State // empty: not one of b's
	}{
		{"slipway-b.efi", Good},
		{"SLIPWAY-B.EFI", Good},
		{"slipway-b+1.efi", Trying},
		{"slipway-b+3.efi", Good},
		{"slipway-b+2-1.efi", Good},
		{"slipway-b+1-2.efi", Good},
		{"slipway-b+0-3.efi", Failed},
		{"slipway-b+0.efi", Failed},
		{"slipway-b+0-1.efi", Failed},
		{"slipway-a.efi", ""},
		{"slipway-b.old", ""},
		{"slipway-b+.efi", ""},
		{"slipway-b-1.efi", ""},
		{"slipway-bb.efi", ""},
	} {
		if state, ok := ukiState(b, tt.name); state != tt.state || ok != (tt.state != "") {
			t.Errorf("%s is %q, %v; want %q", tt.name, state, ok, tt.state)
		}
	}
}
