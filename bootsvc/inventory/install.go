package inventory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"slipway/bootsvc/source"
	"slipway/bootsvc/store"
	"slipway/bootsvc/timeline"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// Installation is what is known of a machine's life on a disk.
type Installation struct {
	// Image is what its config tells it to install. Once it is installed, this
	// stays as it was: another image is an upgrade, not another config.
	Image machine.Image `json:"image,omitzero"`
	// Wipe is what the machine asked leave to destroy.
	Wipe enroll.WipeManifest `json:"wipe,omitzero"`
	// Agreed is the hash that a person, By, agreed to.
	Agreed string `json:"agreed,omitempty"`
	By     string `json:"by,omitempty"`
	// Disk is where it lives; zero: it is not installed.
	Disk enroll.SystemDisk `json:"disk,omitzero"`
	// Reinstall is a person's word: its next boot by the network is the
	// installer's, which may write over the installation that it has.
	Reinstall bool `json:"reinstall,omitempty"`
	// Returns counts the boots by the network since it last ran from its disk.
	Returns int `json:"returns,omitempty"`
}

// MaxReturns is how often an installed machine may ask the network without
// having run from its disk in between. A failed upgrade costs two: one for the
// new slot, and one on the way back to the old one.
const MaxReturns = 5

// Source decides what the machine boots from. It is pure; its table is the test.
// One that was let go and boots by the network has wiped its disk, or does it
// from RAM: the disk may not boot any more.
func (m Machine) Source() source.Source {
	switch i := m.Installation; {
	case i.Disk.Path == "" || i.Reinstall || m.Enrolment.Released:
		return source.Installer
	case i.Returns > MaxReturns:
		return source.Hold
	}
	return source.Disk
}

// SourceOf is the Source of the machine with a hardware address. While the
// store does not answer, nothing is sent over the network: whoever is installed
// boots from its disk, and whoever is not asks again.
func (v *Inventory) SourceOf(ctx context.Context, mac net.HardwareAddr) source.Source {
	m, err := v.Get(ctx, strings.ReplaceAll(mac.String(), ":", "-"))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return source.Installer
	case err != nil:
		v.log.Warn("the store does not say whether a machine is installed", "machine", mac, "error", err)
		return source.Disk
	}
	return m.Source()
}

// Held says why the machine is held, and what to do; empty if it is not.
func (m Machine) Held() string {
	if m.Source() != source.Hold {
		return ""
	}
	return fmt.Sprintf("it is installed on %s, and came back by the network %d times without having run from there: look at its console and its boot order, then slipway machines boot %s --from disk, or --from installer to install it anew",
		m.Installation.Disk.Path, m.Installation.Returns, m.ID)
}

// returned counts a boot by the network. Only the first hop of a boot counts.
func (m Machine) returned(e Event) Machine {
	asks := e.Asker == timeline.Firmware || e.Asker == timeline.Loader
	if !asks || m.Source() == source.Installer {
		return m
	}
	return m.cameBack()
}

// cameBack counts a boot that was not from the machine's disk.
func (m Machine) cameBack() Machine {
	m.Installation.Returns++
	m.WaitingFor = "its disk to boot"
	if held := m.Held(); held != "" {
		m.WaitingFor = held
	}
	return m
}

// OnDisk is the machine after it said where it lives. Found says that it was
// started from RAM, by a medium or by this boot service, and found itself
// installed: that counts as a boot by the network.
func (m Machine) OnDisk(d enroll.SystemDisk, found bool) Machine {
	if d.Booted != "" {
		m.Installation.Returns = 0
	}
	m.Installation.Disk = d
	if found {
		m = m.cameBack()
	}
	return m
}

// Asks is the machine that wants leave to wipe what the manifest lists. What
// was agreed to before is not good for another manifest.
func (m Machine) Asks(w enroll.WipeManifest) Machine {
	i := &m.Installation
	if i.Agreed != w.Hash {
		i.Agreed, i.By = "", ""
	}
	i.Wipe = w
	if i.Agreed == "" {
		m.WaitingFor = fmt.Sprintf("a person to agree that %s is wiped: slipway machines show %s, then slipway machines wipe %s --agree %.12s", w.Paths(), m.ID, m.ID, w.Hash)
	}
	return m
}

// ErrWipe says that the hash is not that of the machine's wipe manifest.
type ErrWipe struct{ Has string }

func (e ErrWipe) Error() string {
	if e.Has == "" {
		return "the machine has not asked to wipe anything"
	}
	return "the wipe manifest has another hash, " + e.Has + ": what is on the disks has changed; look at it again with slipway machines show"
}

// Agree lets the machine wipe what its manifest lists.
func (m Machine) Agree(hash, person string) (Machine, error) {
	if has := m.Installation.Wipe.Hash; has == "" || !strings.EqualFold(has, hash) {
		return m, ErrWipe{has}
	}
	m.Installation.Agreed, m.Installation.By = m.Installation.Wipe.Hash, person
	m.WaitingFor = "the machine to take the agreement and to install itself"
	return m, nil
}

// BootFrom is the machine after a person decided what it boots next.
func (m Machine) BootFrom(s source.Source) Machine {
	m.Installation.Returns = 0
	m.Installation.Reinstall = s == source.Installer
	if m.Phase == enroll.Booting {
		m = m.Enter(enroll.Booting)
	}
	return m
}
