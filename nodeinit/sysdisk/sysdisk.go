// Package sysdisk is the disk that this machine boots from, or is to: it ties
// the packages disk (which disk, partitions, file systems), slot (what boots)
// and install (the steps, and their journal) to the machine's own devices and
// folders. The node agent is its caller; PID 1 wipes with it.
//
// All decisions are in those packages. What is here opens, mounts and closes.
package sysdisk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/install"
	"slipway/nodeinit/slot"
)

// StateDir is where the state partition of an installed machine is mounted.
const StateDir = "/state"

// MachineDir is the folder of the state partition that the node agent keeps.
const MachineDir = "machine"

// slotsFile says what was written to the slots.
const slotsFile = "slots.json"

// Disk is the system disk. Its methods may be called at the same time; one is
// done after the other.
type Disk struct {
	Machine    string          // the machine's ID
	Booted     disklayout.Slot // empty: the machine runs from RAM, and has no disk yet
	Name       string          // the kernel's name of the disk that it booted from
	Version    string          // of the running system
	Committed  time.Time       // when the commit was made that it was built from; zero: not known
	Kubernetes string          // that the running system has, v1.37.1
	RootHash   string          // of the running system's root image, in hex; empty from RAM
	Source     install.Source  // of images
	Hung       bool            // the hardware watchdog says that what ran before hung
	// Anew: a person had the machine install itself anew, whatever it was before.
	Anew bool

	mu    sync.Mutex
	tools disk.Tools
	boot  *bootPartition // open, or nil
}

// Tell is told how far a step is; done and total are bytes, or 0.
type Tell func(step string, done, total int64)

// Image is what a slot holds.
type Image struct {
	Slot     disklayout.Slot `json:"slot"`
	Version  string          `json:"version"`
	RootHash string          `json:"rootHash"` // hex; empty: it holds nothing
	// Kubernetes is the version that it has, v1.37.1; empty if an older Slipway
	// wrote the slot, and nobody wrote that down.
	Kubernetes string `json:"kubernetes,omitempty"`
}

func imageIn(n disklayout.Slot, im *install.Image) Image {
	return Image{Slot: n, Version: im.Version, RootHash: im.Root.Hash, Kubernetes: im.Kubernetes}
}

// running is the image that the machine runs, which knows itself.
func (d *Disk) running() Image {
	return Image{Slot: d.Booted, Version: d.Version, RootHash: d.RootHash, Kubernetes: d.Kubernetes}
}

// build says how old the running system is.
func (d *Disk) build() install.Build {
	return install.Build{Version: d.Version, Committed: d.Committed}
}

// State is what is known of the disk.
type State struct {
	Path, Serial string
	Good         disklayout.Slot // which is known to work
	Trying       disklayout.Slot // booted next, or running, and not good yet; empty: none
	Tries        int             // how often that may still be booted
	Slots        []Image
	Operation    string // the last one, for people: how far it came, how it ended; empty: none
}

// Image is what a slot holds.
func (s State) Image(n disklayout.Slot) Image {
	for _, i := range s.Slots {
		if i.Slot == n {
			return i
		}
	}
	return Image{Slot: n}
}

// ToBoot is the slot that the loader starts next.
func (s State) ToBoot() disklayout.Slot {
	if s.Trying != "" && s.Tries > 0 {
		return s.Trying
	}
	return s.Good
}

// ErrFromRAM is of a machine that has no system disk.
var ErrFromRAM = errors.New("this machine runs from RAM")

// State says what is on the disk that the machine booted from.
func (d *Disk) State() (State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state()
}

func (d *Disk) state() (State, error) {
	state, slots, err := d.read()
	if err != nil {
		return state, err
	}
	return summary(state, slots, d.Booted), nil
}

func (d *Disk) read() (State, slot.Slots, error) {
	if d.Booted == "" {
		return State{}, slot.Slots{}, ErrFromRAM
	}
	dev, err := d.find()
	if err != nil {
		return State{}, slot.Slots{}, err
	}
	state := State{Path: dev.Path, Serial: dev.Serial}
	if state.Slots, err = readImages(StateDir); err != nil {
		return state, slot.Slots{}, err
	}
	state.Slots = withImage(state.Slots, d.running())
	loader, err := d.loader()
	if err != nil {
		return state, slot.Slots{}, err
	}
	record, noted := d.journal().Load()
	state.Operation = record.Summary()
	slots, err := loader.Read()
	return state, slots, errors.Join(err, noted)
}

// summary adds to a disk's state what its loader does. A slot whose try was used
// up is on trial as long as it runs.
func summary(s State, slots slot.Slots, booted disklayout.Slot) State {
	for _, n := range []disklayout.Slot{disklayout.SlotA, disklayout.SlotB} {
		switch state := slots.State(n); {
		case state == slot.Good && (s.Good == "" || slots.Next == n):
			s.Good = n
		case state == slot.Trying:
			s.Trying, s.Tries = n, 1
		case state == slot.Failed && n == booted && s.Trying == "":
			s.Trying = n
		case state == slot.Empty:
			s.Slots = withImage(s.Slots, Image{Slot: n})
		}
	}
	return s
}

// find is the disk as the kernel knows it.
func (d *Disk) find() (disk.Disk, error) {
	list, err := disk.Inventory(os.DirFS("/"))
	if err != nil {
		return disk.Disk{}, err
	}
	for _, found := range list {
		if found.Name == d.Name {
			return found, nil
		}
	}
	return disk.Disk{}, fmt.Errorf("the disk %s that this machine booted from is gone", d.Name)
}

// journal is that of the disk that the machine booted from.
func (d *Disk) journal() install.Journal {
	return install.File(filepath.Join(StateDir, install.JournalName))
}

// readImages reads what was written to the slots; nothing if that is not known,
// as with a disk that was written from a raw image.
func readImages(dir string) ([]Image, error) {
	data, err := os.ReadFile(filepath.Join(dir, slotsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is in the slots: %w", err)
	}
	var list []Image
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read what is in the slots: %w", err)
	}
	return list, nil
}

// keepImages writes down what slots hold.
func keepImages(dir string, images ...Image) error {
	list, err := readImages(dir)
	if err != nil {
		list = nil // it only informs
	}
	for _, image := range images {
		list = withImage(list, image)
	}
	data, err := json.Marshal(list)
	if err == nil {
		err = WriteFile(dir, slotsFile, data)
	}
	if err != nil {
		return fmt.Errorf("keep what is in the slots: %w", err)
	}
	return nil
}

// withImage replaces what a slot holds.
func withImage(list []Image, image Image) []Image {
	next := []Image{}
	for _, i := range list {
		if i.Slot != image.Slot {
			next = append(next, i)
		}
	}
	if image.RootHash != "" {
		next = append(next, image)
	}
	return next
}

// WriteFile replaces a file wholly, for its owner alone; it is on its storage
// afterwards. The folder is made if need be.
func WriteFile(dir, name string, data []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, "."+name)
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
