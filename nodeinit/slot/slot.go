// Package slot knows which of a machine's two systems boots. Slots is the
// value, with transitions that touch nothing; a Loader keeps it on the boot
// partition, in the form that systemd-boot (UEFI) or GRUB (BIOS) acts on.
// Packages install and, at the end of a boot, the node agent are its callers.
//
//	empty ──filled──► failed ──armed──► trying ──booted──► failed ──marked good──► good
//	                    ▲                                                            │
//	                    └────────────────────── marked failed ──────────────────────┘
//
// A slot on trial counts as failed from the moment its loader starts it. So
// whatever ends the trial (an exit of init, a panic, a hang, a power cut) the
// machine is back on the other slot without anybody having to notice.
package slot

import (
	"errors"
	"fmt"
	"io"

	"slipway/configs/disklayout"
)

// State is what is known of the system in a slot.
type State string

// The states of a slot. A slot that was filled and not armed yet is failed: it
// is not to be chosen.
const (
	Empty  State = "empty"
	Good   State = "good"
	Trying State = "trying" // boots once, if it is Next; a power cut while it was armed may have left it not to be
	Failed State = "failed"
)

// Slots is the state of both slots. The zero value, with "" for a state, is not
// valid; a blank disk is Blank.
type Slots struct {
	A, B State
	Next disklayout.Slot // which boots next; empty if none can
}

// Starts is how often a good slot may start in a row before the other has its turn.
const Starts = 3

// Blank is the state of a disk that was just formatted.
func Blank() Slots { return Slots{A: Empty, B: Empty} }

// ErrNoFallback says that a change would leave nothing to come back to.
var ErrNoFallback = errors.New("the other slot is not good: there would be nothing to come back to")

// State returns the state of one slot.
func (s Slots) State(n disklayout.Slot) State {
	if n == disklayout.SlotA {
		return s.A
	}
	return s.B
}

func (s Slots) with(n disklayout.Slot, state State) Slots {
	if n == disklayout.SlotA {
		s.A = state
	} else {
		s.B = state
	}
	s.Next = s.next()
	return s
}

// next is what a loader boots when it was told nothing else: what boots now,
// the other if that is better. A slot that failed boots only if there is no other.
func (s Slots) next() disklayout.Slot {
	for _, state := range []State{Good, Trying, Failed} {
		for _, n := range []disklayout.Slot{s.Next, disklayout.SlotA, disklayout.SlotB} {
			if n != "" && s.State(n) == state {
				return n
			}
		}
	}
	return ""
}

// Cleared makes a slot empty, so that it may be written. The last good one
// stays.
func (s Slots) Cleared(n disklayout.Slot) (Slots, error) {
	if s.State(n) == Good && s.State(n.Other()) != Good {
		return s, fmt.Errorf("clear slot %s: %w", n, ErrNoFallback)
	}
	return s.with(n, Empty), nil
}

// Filled says that a slot's boot files are in place.
func (s Slots) Filled(n disklayout.Slot) (Slots, error) {
	if state := s.State(n); state == Good || state == Trying {
		return s, fmt.Errorf("fill slot %s: it is %s, and may boot", n, state)
	}
	return s.with(n, Failed), nil
}

// Armed lets a slot boot once.
func (s Slots) Armed(n disklayout.Slot) (Slots, error) {
	switch {
	case s.State(n) == Empty:
		return s, fmt.Errorf("arm slot %s: it is empty", n)
	case s.State(n.Other()) != Good:
		return s, fmt.Errorf("arm slot %s: %w", n, ErrNoFallback)
	}
	s = s.with(n, Trying)
	s.Next = n
	return s, nil
}

// Booted is what a loader does: it uses up the try of the slot that it starts,
// if it is on trial.
func (s Slots) Booted() (after Slots, running disklayout.Slot) {
	running = s.Next
	if running != "" && s.State(running) == Trying {
		s = s.with(running, Failed)
	}
	return s, running
}

// OnTrial reports whether the system in a slot, which runs, has still to show
// that it works: it is not known to be good, and there is a good one to go back to.
func (s Slots) OnTrial(running disklayout.Slot) bool {
	return s.State(running) != Good && s.State(running.Other()) == Good
}

// MarkedGood says that the system in a slot has shown that it works. It boots
// from now on.
func (s Slots) MarkedGood(n disklayout.Slot) (Slots, error) {
	if s.State(n) == Empty {
		return s, fmt.Errorf("mark slot %s good: it is empty", n)
	}
	s = s.with(n, Good)
	s.Next = n
	return s, nil
}

// MarkedFailed says that the system in a slot does not work: damage was found
// in it. If it is the only one it stays what boots: better a machine that says
// why than one that does nothing.
func (s Slots) MarkedFailed(n disklayout.Slot) (Slots, error) {
	if s.State(n) == Empty {
		return s, fmt.Errorf("mark slot %s failed: it is empty", n)
	}
	return s.with(n, Failed), nil
}

// RolledBack lets the slot that does not run boot once. It must be good: it ran
// before. One that is armed already, or half, may be armed again.
func (s Slots) RolledBack(running disklayout.Slot) (Slots, error) {
	other := running.Other()
	if state := s.State(other); state != Good && state != Trying {
		return s, fmt.Errorf("roll back to slot %s: it is %s", other, state)
	}
	return s.Armed(other)
}

// Files is a boot partition. Names are paths from its root. A fat.Volume is
// one, and says what holds after a power cut: Create, which also replaces, and
// Remove happen wholly or not at all; Rename may leave both names.
type Files interface {
	List(dir string) ([]string, error)
	ReadFile(name string) ([]byte, error)
	Create(name string, size int64, from io.Reader) error
	Rename(name, base string) error
	Remove(name string) error
}

// Loader keeps Slots on a boot partition. Each method may be repeated after it
// was cut short at any write, and until then the machine boots what it booted
// before, or what it was to boot.
type Loader interface {
	// Read says what the loader would do.
	Read() (Slots, error)
	// Write makes the loader do what a transition of Read's result asks for. The
	// boot files of a slot that became empty are removed. Starts of a good slot
	// are counted anew.
	Write(Slots) error
	// CameUp says that the system in a slot, which runs, has come up. The loader
	// counts the starts of a good slot, to take the other after Starts of them
	// without that, and begins anew.
	CameUp(running disklayout.Slot) error
	// Artifacts are the image's files that a slot needs on the boot partition,
	// in the order in which they are Put. The image's loader is among them.
	Artifacts() []string
	// Put writes one of them. The slot must not be one that may boot; it is
	// failed after the last of them.
	Put(n disklayout.Slot, artifact string, size int64, from io.Reader) error
	// Install makes the loader that firmware starts that of a slot, which has all
	// its files. On a disk that does not boot it is what makes it boot. In the
	// place of another, the old one or the new one is there at every moment; one
	// that is the same already is not written.
	Install(n disklayout.Slot) error
}

// closed refuses to write to a slot that may boot.
func closed(l Loader, n disklayout.Slot) error {
	s, err := l.Read()
	if err == nil {
		_, err = s.Filled(n)
	}
	return err
}
