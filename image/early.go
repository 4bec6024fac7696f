package image

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"

	"slipway/image/module"
	"slipway/image/pattern"
	"slipway/image/tree"
)

// What PID 1 needs before the root image is mounted, as directories of the
// root image's cache: /modules/*.ko with the order in which they are loaded, and
// for a disk /usr/lib/modules/<release> with drivers and their tables.
const (
	earlyRAM  = "early"
	earlyDisk = "early.disk"
)

// writeEarly writes both directories.
func (a *assembly) writeEarly(modules map[string]module.Module, set module.Set) error {
	kernel := a.recipe.Kernel
	for dir, names := range map[string][]string{earlyRAM: kernel.Modules.Boot, earlyDisk: kernel.Modules.Slot} {
		if err := a.writeOrdered(dir+"/modules/", modules, set.LoadOrder(names)); err != nil {
			return err
		}
	}
	return a.writeDrivers(earlyDisk+"/usr/lib/modules/"+kernel.Release()+"/", modules, diskDrivers(set, kernel.Modules.Disk))
}

// writeOrdered writes modules and the list by which init loads them.
func (a *assembly) writeOrdered(dir string, modules map[string]module.Module, names []string) error {
	var order bytes.Buffer
	for _, name := range names {
		file := path.Base(modules[name].Path)
		fmt.Fprintln(&order, file)
		if err := a.writeTo(dir+file, bytes.NewReader(modules[name].Data)); err != nil {
			return err
		}
	}
	return a.writeTo(dir+"order", &order)
}

// diskDrivers returns the chosen drivers with all they depend on.
func diskDrivers(set module.Set, patterns []string) module.Set {
	choice := pattern.Filter{Include: patterns}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if choice.Takes(set[name].Path) {
			names = append(names, name)
		}
	}
	drivers := module.Set{}
	for _, name := range set.LoadOrder(names) {
		drivers[name] = set[name]
	}
	return drivers
}

// writeDrivers writes modules with tables by which they are found.
func (a *assembly) writeDrivers(dir string, modules map[string]module.Module, drivers module.Set) error {
	for name, info := range drivers {
		if err := a.writeTo(dir+info.Path, bytes.NewReader(modules[name].Data)); err != nil {
			return err
		}
	}
	for name, data := range ownTables(drivers) {
		if err := a.writeTo(dir+name, bytes.NewReader(data)); err != nil {
			return err
		}
	}
	return nil
}

// earlyTree is an initramfs but for the root image: init, mount points and one
// of the directories that writeEarly wrote.
func earlyTree(init, dir string) (*tree.Tree, error) {
	t := tree.New()
	if err := t.Add("init", tree.Entry{Mode: 0o755, Source: init}); err != nil {
		return nil, err
	}
	for _, mount := range []string{"dev", "proc", "sys", "run", "root"} {
		if err := t.AddDir(mount, 0o755); err != nil {
			return nil, err
		}
	}
	return t, filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		return t.Add(filepath.ToSlash(name), tree.Entry{Mode: 0o644, Source: file})
	})
}
