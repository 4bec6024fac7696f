package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot/fat"
)

// GRUB keeps Slots in GRUB's environment block, which disklayout's grub.cfg
// acts on. All of it is one file, replaced as a whole, so that every change is
// one write that is there or not. GRUB itself writes into the file in place, to
// use up a try: that is the first of its two sectors, because what we write
// fits into the first, and a sector is written wholly or not at all.
type GRUB struct {
	Boot Files
	Disk fat.Device // the whole disk: Install writes GRUB's images outside of any file system
}

// The image's files that GRUB needs.
const (
	kernelArtifact    = "kernel"
	initramfsArtifact = "initramfs.disk"
	argumentsArtifact = "arguments.disk"
	grubBoot          = "loaders/grub/boot.img"
	grubCore          = "loaders/grub/core.img"
)

// oneSector is how much of the environment block we use.
const oneSector = 512

// Read implements Loader. A slot that has a kernel and is not named in the
// environment is failed. Without an environment, as on a disk image that was
// never booted, it is good.
func (l GRUB) Read() (Slots, error) {
	s := Blank()
	for _, n := range []disklayout.Slot{disklayout.SlotA, disklayout.SlotB} {
		has, err := l.has(n)
		if err != nil {
			return s, err
		}
		if has {
			s = s.with(n, Failed)
		}
	}
	block, err := l.Boot.ReadFile(disklayout.GRUBEnvironment)
	if errors.Is(err, fs.ErrNotExist) {
		return s.allGood(), nil
	} else if err != nil {
		return s, err
	}
	env, err := disklayout.ReadEnvironmentBlock(block)
	if err != nil {
		return s, fmt.Errorf("read %s: %w", disklayout.GRUBEnvironment, err)
	}
	return s.fromEnvironment(env), nil
}

// has tells whether a slot has anything on the boot partition.
func (l GRUB) has(n disklayout.Slot) (bool, error) {
	names, err := l.Boot.List(path.Dir(n.Kernel()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(names) > 0, err
}

func (s Slots) allGood() Slots {
	for _, n := range []disklayout.Slot{disklayout.SlotB, disklayout.SlotA} {
		if s.State(n) != Empty {
			s, _ = s.MarkedGood(n) // refuses only what is empty
		}
	}
	return s
}

func (s Slots) fromEnvironment(env map[string]string) Slots {
	set := func(key string, state State) {
		if n := disklayout.Slot(env[key]); n == disklayout.SlotA || n == disklayout.SlotB {
			if s.State(n) != Empty {
				s = s.with(n, state)
				s.Next = n
			}
		}
	}
	set("spare", Good)
	set("good", Good)
	if env["tries"] == "1" {
		set("try", Trying)
	}
	return s
}

// environment is the reverse of fromEnvironment.
func (s Slots) environment() []disklayout.Setting {
	env := map[string]disklayout.Slot{}
	for _, n := range []disklayout.Slot{s.Next.Other(), s.Next} {
		switch {
		case s.Next == "":
		case s.State(n) == Good && n == s.Next, s.State(n) == Good && s.State(s.Next) != Good:
			env["good"] = n
		case s.State(n) == Good:
			env["spare"] = n
		case s.State(n) != Empty:
			env["try"] = n
		}
	}
	tries := "0"
	if n := env["try"]; n != "" && s.State(n) == Trying {
		tries = "1"
	}
	list := []disklayout.Setting{}
	for _, key := range []string{"good", "spare", "try"} {
		list = append(list, disklayout.Setting{Name: key, Value: string(env[key])})
	}
	return append(list, disklayout.Setting{Name: "tries", Value: tries}, disklayout.Setting{Name: "left", Value: strconv.Itoa(Starts)})
}

// Write implements Loader. A slot's files are removed once the environment does
// not name it any more; they were there before it named it.
func (l GRUB) Write(to Slots) error {
	block := disklayout.EnvironmentBlock(to.environment()...)
	if len(bytes.TrimRight(block, "#")) > oneSector {
		return errors.New("GRUB's environment is more than a sector: it could not be written at once")
	}
	if old, err := l.Boot.ReadFile(disklayout.GRUBEnvironment); err != nil || !bytes.Equal(old, block) {
		if err := l.Boot.Create(disklayout.GRUBEnvironment, int64(len(block)), bytes.NewReader(block)); err != nil {
			return err
		}
	}
	for _, n := range []disklayout.Slot{disklayout.SlotA, disklayout.SlotB} {
		if to.State(n) != Empty {
			continue
		}
		for _, name := range []string{n.Kernel(), n.Initramfs(), n.Arguments(), n.StagedGRUBCore(), n.StagedGRUBBoot()} {
			if err := l.Boot.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// CameUp implements Loader: each Write begins to count anew.
func (l GRUB) CameUp(disklayout.Slot) error {
	now, err := l.Read()
	if err != nil {
		return err
	}
	return l.Write(now)
}

// Artifacts implements Loader. The kernel is last: grub.cfg starts nothing
// without one.
func (l GRUB) Artifacts() []string {
	return []string{grubBoot, grubCore, argumentsArtifact, initramfsArtifact, kernelArtifact}
}

// Put implements Loader.
func (l GRUB) Put(n disklayout.Slot, artifact string, size int64, from io.Reader) error {
	if err := closed(l, n); err != nil {
		return err
	}
	if err := l.establish(); err != nil {
		return err
	}
	switch artifact {
	case grubBoot:
		return stage(l.Boot, n.StagedGRUBBoot(), size, from)
	case grubCore:
		return stage(l.Boot, n.StagedGRUBCore(), size, from)
	case kernelArtifact:
		return l.Boot.Create(n.Kernel(), size, from)
	case initramfsArtifact:
		return l.Boot.Create(n.Initramfs(), size, from)
	case argumentsArtifact:
		text, err := io.ReadAll(io.LimitReader(from, size+1))
		if err != nil {
			return err
		}
		block := disklayout.GRUBArguments(string(text))
		return l.Boot.Create(n.Arguments(), int64(len(block)), bytes.NewReader(block))
	}
	return fmt.Errorf("GRUB has no use for %s", artifact)
}

// establish writes the environment if there is none, before a slot gets its
// first file: without one, what is there would count as good.
func (l GRUB) establish() error {
	_, err := l.Boot.ReadFile(disklayout.GRUBEnvironment)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now, err := l.Read()
	if err != nil {
		return err
	}
	return l.Write(now)
}
