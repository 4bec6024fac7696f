package slot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"slipway/configs/disklayout"
)

// SystemdBoot keeps Slots as systemd-boot does ("Automatic Boot Assessment" in
// its documentation): the state of a slot is in the name of its unified kernel
// image, and a line of loader.conf names the file that is to boot.
//
//	slipway-b.efi       good, and there is no other good one
//	slipway-b+3.efi     good, as the other is; systemd-boot renames it to +2-1, +1-2, +0-3 as it starts it
//	slipway-b+1.efi     one try left; systemd-boot renames it to +0-1 before it starts it
//	slipway-b+0-1.efi   no try left: failed, unless the running system says otherwise
//	slipway-b+0.efi     filled, and not armed yet
//
// A system that came up gives a good slot all its starts back. One that uses
// them up without that is +0-3, and failed like any without tries left.
//
// loader.conf names a slot on trial by the whole name, counters included, and a
// good one by a pattern that all of its names match, but not +0-3. So its line stops
// to match with the rename that uses up the last try, and systemd-boot falls to
// its own order: one without tries left comes last.
//
// A change is at most two writes, loader.conf and a rename, either of which is
// there wholly or not. The one that goes first makes no difference until the
// second: see Write. A rename that a power cut left with both names, ours or
// the firmware's, reads as the better of the two, and the next Write removes the other.
type SystemdBoot struct{ Boot Files }

const (
	ukiArtifact  = "uki.efi"
	sdbootBinary = "loaders/systemd-bootx64.efi"
)

var ukiDir = path.Dir(disklayout.SlotA.UKI())

// ukiBase is how the names of a slot's images begin.
func ukiBase(n disklayout.Slot) string { return strings.TrimSuffix(path.Base(n.UKI()), ".efi") }

// ukiName is the file name of a slot's image, if the slots are in a state. The
// starts of a good slot are counted if the other may have its turn.
func ukiName(n disklayout.Slot, s Slots) string {
	tries := map[State]int{Good: Starts, Trying: 1}[s.State(n)]
	if s.State(n) == Good && s.State(n.Other()) != Good {
		return ukiBase(n) + ".efi"
	}
	return fmt.Sprintf("%s+%d.efi", ukiBase(n), tries)
}

// ukiWanted is how loader.conf names a slot's image.
func ukiWanted(n disklayout.Slot, s Slots) string {
	if s.State(n) == Good {
		return ukiBase(n) + "[.+][1-9e]*" // .efi, +1...
	}
	return ukiName(n, s)
}

// ukiState reads a file name. ok tells whether it is one of the slot's. A name
// without counters is good: systemd-boot calls it so.
func ukiState(n disklayout.Slot, name string) (state State, ok bool) {
	rest, ok := strings.CutPrefix(strings.ToLower(name), ukiBase(n))
	if !ok {
		return "", false
	}
	if rest == ".efi" {
		return Good, true
	}
	counters, plus := strings.CutPrefix(rest, "+")
	counters, efi := strings.CutSuffix(counters, ".efi")
	if !plus || !efi {
		return "", false
	}
	before, after, _ := strings.Cut(counters, "-")
	left, err := strconv.ParseUint(before, 10, 31)
	if err != nil {
		return "", false
	}
	done, _ := strconv.ParseUint(after, 10, 31) // none: 0
	switch {
	case left == 0:
		return Failed, true
	case left+done < Starts:
		return Trying, true
	}
	return Good, true
}

// images are the names of a slot's files, best first.
func images(names []string, n disklayout.Slot) []string {
	var list []string
	for _, want := range []State{Good, Trying, Failed} {
		for _, name := range names {
			if state, ok := ukiState(n, name); ok && state == want {
				list = append(list, name)
			}
		}
	}
	return list
}

func stateOf(names []string, n disklayout.Slot) State {
	list := images(names, n)
	if len(list) == 0 {
		return Empty
	}
	state, _ := ukiState(n, list[0])
	return state
}

// Read implements Loader. When no line of loader.conf matches and both slots
// are good, systemd-boot compares the versions inside the images, and Read says
// a; Write does not leave it so.
func (l SystemdBoot) Read() (Slots, error) {
	names, err := l.names()
	if err != nil {
		return Slots{}, err
	}
	s := Slots{A: stateOf(names, disklayout.SlotA), B: stateOf(names, disklayout.SlotB)}
	s.Next = s.next()
	wanted, err := l.wanted()
	for _, n := range []disklayout.Slot{disklayout.SlotA, disklayout.SlotB} {
		good := s.State(n) == Good && wanted == ukiWanted(n, s)
		if good || slices.Contains(images(names, n), wanted) {
			s.Next = n
		}
	}
	return s, err
}

func (l SystemdBoot) names() ([]string, error) {
	names, err := l.Boot.List(ukiDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// wanted is the file that loader.conf asks for.
func (l SystemdBoot) wanted() (string, error) {
	text, err := l.Boot.ReadFile(disklayout.LoaderConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "default" {
			return fields[1], nil
		}
	}
	return "", nil
}

// Write implements Loader. loader.conf goes first: it then names a file that is
// not there yet, and the slot that is to boot next is a failed one until the
// rename, so the other boots. Only when a good slot is sent to a trial is it
// the other way round: its new name means nothing while loader.conf has the
// other's.
func (l SystemdBoot) Write(to Slots) error {
	now, err := l.Read()
	if err != nil {
		return err
	}
	writes := []func() error{
		func() error { return l.want(to) },
		func() error { return l.rename(disklayout.SlotA, to) },
		func() error { return l.rename(disklayout.SlotB, to) },
	}
	if to.Next != "" && now.State(to.Next) == Good && to.State(to.Next) == Trying {
		slices.Reverse(writes)
	}
	for _, write := range writes {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

func (l SystemdBoot) want(to Slots) error {
	text := disklayout.LoaderConfText
	if to.Next != "" && to.State(to.Next) != Failed {
		text += "default " + ukiWanted(to.Next, to) + "\n"
	}
	if old, err := l.Boot.ReadFile(disklayout.LoaderConf); err == nil && string(old) == text {
		return nil
	}
	return l.Boot.Create(disklayout.LoaderConf, int64(len(text)), strings.NewReader(text))
}

// rename leaves a slot one file, with the name of its state, or none.
func (l SystemdBoot) rename(n disklayout.Slot, to Slots) error {
	names, err := l.names()
	if err != nil {
		return err
	}
	list, state := images(names, n), to.State(n)
	if state == Empty {
		return l.remove(list)
	}
	if len(list) == 0 {
		return fmt.Errorf("slot %s has no kernel image on the boot partition and cannot be %s", n, state)
	}
	keep, want := list[0], ukiName(n, to)
	for _, name := range list {
		if has, _ := ukiState(n, name); has == state && keep != want {
			keep = name
		}
	}
	if has, _ := ukiState(n, keep); keep != want && (has != state || state != Failed) {
		if err := l.Boot.Rename(path.Join(ukiDir, keep), want); err != nil {
			return err
		}
	}
	return l.remove(slices.DeleteFunc(list, func(name string) bool { return name == keep }))
}

func (l SystemdBoot) remove(names []string) error {
	for _, name := range names {
		if err := l.Boot.Remove(path.Join(ukiDir, name)); err != nil {
			return err
		}
	}
	return nil
}

// CameUp implements Loader. A good slot that runs by the last of its starts is
// failed until then.
func (l SystemdBoot) CameUp(running disklayout.Slot) error {
	now, err := l.Read()
	if err != nil {
		return err
	}
	names, err := l.names()
	if err != nil {
		return err
	}
	spent := func(name string) bool {
		return strings.EqualFold(name, fmt.Sprintf("%s+0-%d.efi", ukiBase(running), Starts))
	}
	if slices.ContainsFunc(names, spent) {
		if now, err = now.MarkedGood(running); err != nil {
			return err
		}
	}
	return l.Write(now)
}

// Artifacts implements Loader.
func (l SystemdBoot) Artifacts() []string { return []string{sdbootBinary, ukiArtifact} }

// Put implements Loader.
func (l SystemdBoot) Put(n disklayout.Slot, artifact string, size int64, from io.Reader) error {
	if err := closed(l, n); err != nil {
		return err
	}
	switch artifact {
	case sdbootBinary:
		return stage(l.Boot, n.StagedLoader(), size, from)
	case ukiArtifact:
		names, err := l.names()
		if err == nil {
			err = l.remove(images(names, n))
		}
		if err != nil {
			return err
		}
		return l.Boot.Create(path.Join(ukiDir, ukiBase(n)+"+0.efi"), size, from)
	}
	return fmt.Errorf("systemd-boot has no use for %s", artifact)
}

// Install implements Loader: the removable-media path, which firmware looks for
// on any disk, is what makes the disk boot, and comes last.
func (l SystemdBoot) Install(n disklayout.Slot) error {
	program, err := staged(l.Boot, n.StagedLoader())
	if err != nil {
		return err
	}
	for _, name := range []string{disklayout.SystemdBoot, disklayout.RemovableLoader} {
		if err := replace(l.Boot, name, program); err != nil {
			return err
		}
	}
	return nil
}
