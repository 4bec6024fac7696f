// Package powercut cuts the power of a machine while it is installed, upgraded,
// rolled back and reset, at every kind of moment, and sees whether it comes back.
//
// The operations are the real ones of packages install and slot, and the boot
// partition is written by the node's own code (slot/fat). They work on a disk in
// memory that records each write and each flush. A cut takes the disk as it was
// at the last flush, and of every write since then all, nothing, or some sectors.
// Then the machine is powered on: what firmware, the loader and init would do is
// written here a second time, after their documentation, with another FAT
// driver; what boots must be whole, its root image right in every block. The
// agent goes on from there, is cut again, and must reach the end.
//
// What this does not cover: the state and data partitions' ext4 (the journal's
// file counts as old or new, never half), the partitioning of package disk
// (the table is written by the same library in the same way), a firmware's own
// FAT driver, which renames a file when systemd-boot uses up a try (ours does
// it here), and disks that say a flush was done when it was not.
package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"slipway/configs/disklayout"
	"slipway/nodeinit/install"
	"slipway/nodeinit/slot"
)

// story is something that a machine goes through. run begins with powering it
// on, and may be begun again after a cut: it is what the agent and the person who
// asked for it do. It ends when the machine is where it should be.
type story struct {
	name    string
	prepare func(*machine) error
	run     func(*machine) error
	offline bool // there are times at which the disk boots nothing, and the network must
}

func (l *lab) stories() []story {
	installed := func(m *machine) error { return m.runInstall(l.one) }
	both := func(m *machine) error { return errors.Join(m.runInstall(l.one), m.runUpgrade(l.two)) }
	return []story{
		{"install", nil, func(m *machine) error { return m.runInstall(l.one) }, true},
		{"reinstall", both, func(m *machine) error { return m.runInstall(l.three) }, true},
		{"upgrade", installed, func(m *machine) error { return m.runUpgrade(l.two) }, false},
		{"upgrade by kexec", installed, func(m *machine) error { return m.runKexecUpgrade(l.two) }, false},
		{"next upgrade", both, func(m *machine) error { return m.runUpgrade(l.three) }, false},
		{"upgrade to an image that does not work", both, func(m *machine) error { return m.runBadUpgrade(l.three) }, false},
		{"rollback", both, func(m *machine) error { return m.runRollback() }, false},
		{"reset", both, func(m *machine) error { return m.runReset(l.three) }, true},
	}
}

// runInstall: the boot service offers the installer until it is told that the
// machine is installed.
func (m *machine) runInstall(b *build) error {
	if done := m.disk.rec; !m.hasState() || done.Version != b.version || done.Outcome != install.Succeeded {
		m.stateMounted = false
		if err := m.install(b); err != nil {
			return err
		}
	}
	return m.expect(b)
}

// expect restarts the machine and wants a system to run, as a good one, by its
// own loader.
func (m *machine) expect(b *build) error {
	n, system, err := m.powerOn()
	if err != nil {
		return err
	}
	s, err := m.cameUp(n)
	if err == nil && (system != b || s.State(n) != slot.Good || s.Next != n) {
		err = fmt.Errorf("slot %q runs, slots are %+v, want %s", n, s, b.version)
	}
	if err == nil && m.loads != b && m.disk.rec.Operation != "rollback" {
		err = fmt.Errorf("%s runs by the loader of %s", b.version, m.loads.version)
	}
	return err
}

// runUpgrade ends when the new system is marked good. A cut may end its trial;
// then it is upgraded again.
func (m *machine) runUpgrade(b *build) error {
	return m.live(func(n disklayout.Slot, system *build, v install.Verdict) (bool, error) {
		switch {
		case v == install.Settled && system == b:
			return true, m.expect(b)
		case v == install.Settled, v == install.Interrupted:
			return false, m.upgrade(b, n)
		}
		return false, m.judge(v, n)
	})
}

// runKexecUpgrade is runUpgrade with a restart into the new system that leaves
// out firmware and loader: the agent uses up the try before it.
func (m *machine) runKexecUpgrade(b *build) error {
	return m.live(func(n disklayout.Slot, system *build, v install.Verdict) (bool, error) {
		switch {
		case v == install.Settled && system == b:
			return true, m.expect(b)
		case v == install.Settled, v == install.Interrupted:
			if err := m.upgrade(b, n); err != nil {
				return false, err
			}
			return false, m.kexec(n.Other())
		}
		return false, m.judge(v, n)
	})
}

// kexec starts a slot's system, which finds that it is on trial and is well.
func (m *machine) kexec(n disklayout.Slot) error {
	l, err := m.loader()
	if err != nil {
		return err
	}
	s, err := l.Read()
	if err != nil {
		return err
	}
	s, _ = s.Booted()
	if err := l.Write(s); err != nil {
		return err
	}
	if v := install.Assess(m.disk.rec, n, s); v != install.OnTrial || s.State(n) != slot.Failed || s.Next == n {
		return fmt.Errorf("slot %s was started by kexec: it is %s, slots are %+v", n, v, s)
	}
	return m.judge(install.OnTrial, n)
}

// runBadUpgrade ends with the machine back on its old system, which says why.
func (m *machine) runBadUpgrade(b *build) error {
	return m.live(func(n disklayout.Slot, system *build, v install.Verdict) (bool, error) {
		rec := m.disk.rec
		switch {
		case v == install.Settled && rec.Version == b.version:
			if system == b || rec.Outcome != install.FellBack || rec.Reason == "" {
				return true, fmt.Errorf("the machine runs %s, and the journal says %+v", system.version, rec)
			}
			return true, nil
		case v == install.Settled, v == install.Interrupted:
			return false, m.upgrade(b, n)
		case v == install.OnTrial:
			return false, install.GiveUp(journal{m}, "the kubelet was not ready", now())
		}
		return false, m.judge(v, n)
	})
}

// runRollback ends with the older system marked good, or, if a cut ended its
// trial, with the newer.
func (m *machine) runRollback() error {
	return m.live(func(n disklayout.Slot, system *build, v install.Verdict) (bool, error) {
		switch {
		case v == install.Settled && m.disk.rec.Operation == "rollback":
			return true, m.expect(system)
		case v == install.TookOver: // there is nothing left to go back to
			return true, nil
		case v == install.Settled, v == install.Interrupted:
			return false, m.rollback(n)
		}
		return false, m.judge(v, n)
	})
}

// live restarts the machine until the agent is done.
func (m *machine) live(agent func(disklayout.Slot, *build, install.Verdict) (bool, error)) error {
	for {
		n, system, err := m.powerOn()
		if err != nil {
			return err
		}
		if n == "" {
			return fmt.Errorf("%w: the disk boots nothing", errStuck)
		}
		s, err := m.cameUp(n)
		if err != nil {
			return err
		}
		if done, err := agent(n, system, install.Assess(m.disk.rec, n, s)); done || err != nil {
			return err
		}
	}
}

// cutOff is why a slot is lost that was good.
const cutOff = "it started three times without coming up"

// judge is the agent's part of a trial.
func (m *machine) judge(v install.Verdict, n disklayout.Slot) error {
	l, err := m.loader()
	switch {
	case err != nil:
		return err
	case v == install.OnTrial, v == install.Works:
		return install.Keep(journal{m}, l, n, now())
	case v == install.CameBack:
		return install.Fallen(journal{m}, false, now())
	case v == install.TookOver: // cut three times before the agent ran, the good slot counts as lost
		return install.Lost(journal{m}, n.Other(), "", cutOff, now())
	}
	return nil // waiting: it restarts
}

// runReset: a machine that boots from its disk, or finds a reset noted there, is
// told to reset itself or goes on with it; one that finds nothing is nobody's,
// and can be installed.
func (m *machine) runReset(next *build) error {
	n, _, err := m.powerOn()
	if err != nil {
		return err
	}
	if m.stateMounted = m.hasState(); n != "" || m.stateMounted && m.disk.rec.Operation == install.ResetName {
		if err := m.reset(); err != nil {
			return err
		}
	}
	if n, _, err := m.powerOn(); err != nil || n != "" {
		return fmt.Errorf("after the reset slot %q boots, %w", n, err)
	}
	return m.runInstall(next)
}

// lab is what all stories share.
type lab struct{ one, two, three *build }

// Result is what Run saw.
type Result struct {
	Cuts, Survived int
	Failures       []error // one for each cut that was not survived
}

// Run cuts the power a number of times, spread evenly over all stories on UEFI
// and BIOS machines. The same seed makes the same cuts.
func Run(cuts int, seed uint64) (Result, error) {
	dir, err := os.MkdirTemp("", "powercut-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	var l lab
	for version, to := range map[string]**build{"v1.0.0": &l.one, "v2.0.0": &l.two, "v3.0.0": &l.three} {
		if *to, err = newBuild(dir, version); err != nil {
			return Result{}, err
		}
	}
	var tapes []*tape
	for _, uefi := range []bool{true, false} {
		for _, s := range l.stories() {
			t, err := l.record(s, uefi)
			if err != nil {
				return Result{}, fmt.Errorf("%s, without a cut: %w", t, err)
			}
			tapes = append(tapes, t)
		}
	}
	var result Result
	for i := range cuts {
		t, r := tapes[i%len(tapes)], rand.New(rand.NewPCG(seed, uint64(i)))
		result.Cuts++
		if err := t.cut(r); err != nil {
			result.Failures = append(result.Failures, fmt.Errorf("%s, seed %d, cut %d: %w", t, seed, i, err))
			continue
		}
		result.Survived++
	}
	return result, nil
}

// tape is a story as it went without a cut.
type tape struct {
	story
	machine machine // at the beginning
	log     []event
}

func (t *tape) String() string {
	if t.machine.uefi {
		return t.name + " on UEFI"
	}
	return t.name + " on BIOS"
}

func (l *lab) record(s story, uefi bool) (*tape, error) {
	m := machine{uefi: uefi, disk: newDisk(disklayout.SmallestDisk), builds: []*build{l.one, l.two, l.three}}
	if s.prepare != nil {
		if err := s.prepare(&m); err != nil {
			return &tape{story: s, machine: m}, fmt.Errorf("prepare: %w", err)
		}
	}
	t := &tape{story: s, machine: m.on(m.disk.snapshot())}
	run := t.machine.on(t.machine.disk.snapshot())
	err := s.run(&run)
	t.log = run.disk.log
	return t, err
}

// on is the machine, switched off, with another disk.
func (m *machine) on(d *disk) machine { return machine{uefi: m.uefi, disk: d, builds: m.builds} }

// cut cuts the power somewhere in the story, goes on, and half of the times
// cuts it again on the way.
func (t *tape) cut(r *rand.Rand) error {
	base, log := t.machine.disk, t.log
	for {
		n := 1 + r.IntN(len(log))
		base = cut(base, log, n, r)
		if err := t.comesBack(base.snapshot()); err != nil {
			return fmt.Errorf("after %d of %d writes: %w", n, len(log), err)
		}
		m := t.machine.on(base.snapshot())
		if err := t.run(&m); err != nil {
			return fmt.Errorf("going on after %d of %d writes: %w", n, len(log), err)
		}
		if log = m.disk.log; len(log) == 0 || r.IntN(2) == 0 {
			return nil
		}
	}
}

// comesBack powers the machine on twice: what boots works, and so does what
// boots after that if the first was only a try.
func (t *tape) comesBack(d *disk) error {
	m := t.machine.on(d)
	for range 2 {
		n, _, err := m.powerOn()
		if err != nil {
			return err
		}
		if n == "" && !t.offline {
			return fmt.Errorf("%w: the disk boots nothing", errStuck)
		}
	}
	return nil
}
