package sysdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"slipway/configs/disklayout"
	"slipway/configs/wipe"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/install"
)

// Found is an installation of this machine that came to its end: the disk can
// be booted, and keeps who the machine is. A machine that runs from RAM and has
// one was sent the installer by mistake: the boot service has not heard of the
// installation, or has forgotten it.
type Found struct {
	State State
	Files map[string][]byte // the agent's, from the state partition
	Made  time.Time         // when the config in it was written
	// Reset is how its disk is to be wiped, if a reset of the machine was cut
	// short: then it boots no more, or should not. Empty: none was.
	Reset wipe.How
}

// Find looks for one on all disks; of several it is the latest, nil if there is
// none. It writes nothing, but for the state partition's file system, whose
// journal is played back. A disk that cannot be read is an error only if no
// other has what is looked for.
func (d *Disk) Find(ctx context.Context) (*Found, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list, err := disk.Inventory(os.DirFS("/"))
	if err != nil {
		return nil, err
	}
	var latest *Found
	var errs []error
	for _, one := range list {
		if _, ok := one.Partition(disklayout.StateLabel); !ok || ctx.Err() != nil {
			continue
		}
		owner, err := disk.OwnerOf(one)
		if err != nil || owner.Machine != d.Machine {
			errs = append(errs, err)
			continue
		}
		found, err := (&target{Disk: d, disk: one, dir: targetDir}).found()
		errs = append(errs, err)
		if found != nil && (latest == nil || found.Made.After(latest.Made)) {
			latest = found
		}
	}
	if latest != nil {
		return latest, nil
	}
	return nil, errors.Join(errs...)
}

// found is what the target's state partition keeps; nil if its installation is
// not whole.
func (t *target) found() (*Found, error) {
	if p, ok := t.disk.Partition(disklayout.StateLabel); !ok || !hasExt4(p.Path) {
		return nil, nil // an installation that had just begun, or had only claimed the disk
	}
	if err := t.mount(); err != nil {
		return nil, err
	}
	found, err := readFound(t.dir)
	if err := errors.Join(err, t.unmount()); err != nil {
		return nil, fmt.Errorf("look at the installation on %s: %w", t.disk.Path, err)
	}
	if found != nil {
		found.State.Path, found.State.Serial = t.disk.Path, t.disk.Serial
	}
	return found, nil
}

// hasExt4 tells a partition that mke2fs has been done with
// (docs.kernel.org/filesystems/ext4, Super Block).
func hasExt4(path string) bool {
	const magicAt = 1024 + 0x38
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [2]byte
	_, err = f.ReadAt(magic[:], magicAt)
	return err == nil && magic == [2]byte{0x53, 0xef}
}

// identity are the files without which a machine is nobody.
var identity = []string{"machine.key", "machine.crt", "ca.crt", "config.yaml"}

// readFound reads a mounted state partition.
func readFound(dir string) (*Found, error) {
	record, err := install.File(filepath.Join(dir, install.JournalName)).Load()
	if err != nil {
		return nil, err
	}
	if record.Operation == install.ResetName {
		return &Found{Reset: wipe.How(record.Key), Made: record.Updated}, nil
	}
	if !record.Installed() {
		return nil, nil
	}
	found := &Found{Files: map[string][]byte{}}
	files, err := os.ReadDir(filepath.Join(dir, MachineDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, file := range files {
		if !file.Type().IsRegular() {
			continue
		}
		if found.Files[file.Name()], err = os.ReadFile(filepath.Join(dir, MachineDir, file.Name())); err != nil {
			return nil, err
		}
		if info, err := file.Info(); err == nil && file.Name() == "config.yaml" {
			found.Made = info.ModTime()
		}
	}
	if slices.ContainsFunc(identity, func(name string) bool { return len(found.Files[name]) == 0 }) {
		return nil, nil
	}
	found.State.Slots, err = readImages(dir)
	return found, err
}

// Wipe ends a reset of this machine that was cut short, or of one that was let
// go while it was away. Nothing may use the disk.
func (d *Disk) Wipe(ctx context.Context, found *Found) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	list, err := disk.Inventory(os.DirFS("/"))
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(one disk.Disk) bool { return one.Path == found.State.Path && one.Serial == found.State.Serial })
	if at < 0 {
		return fmt.Errorf("wipe %s: it is gone", found.State.Path)
	}
	how := means(found.Reset, func(how wipe.How) error { return d.tools.CanErase(list[at], how) })
	return (&Disk{Name: list[at].Name}).wipe(ctx, how)
}

// means is how a disk is wiped when no person is there who could choose another
// way: as was said or, where the disk does not know that, by overwriting it all.
func means(said wipe.How, can func(wipe.How) error) wipe.How {
	how, err := wipe.Parse(string(said))
	switch {
	case err != nil: // a later Slipway noted it
		return wipe.Metadata
	case can(how) != nil:
		return wipe.Zero
	}
	return how
}

// NoteReset has a reset go on after a power cut: from the disk or, when that
// does not boot any more, from RAM.
func (d *Disk) NoteReset(how wipe.How) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	return d.journal().Save(install.Record{Operation: install.ResetName, Key: string(how), Started: now, Updated: now})
}

// Resetting is how the disk is to be wiped by a reset that was cut short; empty:
// none was.
func (d *Disk) Resetting() (how wipe.How, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	record, err := d.journal().Load()
	if err != nil || record.Operation != install.ResetName {
		return "", err
	}
	return wipe.How(record.Key), nil
}

// own asks before an installation of this machine that came to its end is
// written over: what it keeps is lost by that as any other owner's is. Nobody is
// asked if a person had the machine install itself anew, nor before a half
// installation is, which nothing has run from.
func (t *target) own(manifest disk.Manifest) error {
	own := slices.ContainsFunc(manifest.Disks, func(d disk.Target) bool { return d.Own })
	if !own || t.Anew || t.want.Wipe == manifest.Hash() {
		return nil
	}
	found, err := t.found()
	if found != nil && found.Reset == "" || err != nil { // what cannot be read may be whole
		return &WipeError{manifest}
	}
	return nil
}

// targetDir is where the state partition is mounted that is not the running system's.
const targetDir = "/run/slipway/target"
