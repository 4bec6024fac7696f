package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"slipway/image/module"
	"slipway/image/pattern"
)

// kernelFiles is what the builder reads out of a kernel package.
type kernelFiles struct {
	vmlinuz []byte
	tables  map[string][]byte // modules.builtin and the like, by name
	modules module.Packed
}

// addKernel writes the kernel and the boot modules beside the root image and
// the chosen modules with their tables into it.
func (a *assembly) addKernel(ctx context.Context) error {
	k, err := a.readKernel(ctx)
	if err != nil {
		return err
	}
	if err := a.writeTo("kernel", bytes.NewReader(k.vmlinuz)); err != nil {
		return err
	}
	builtin := builtinNames(k.tables["modules.builtin"])
	choice := pattern.Filter{Include: a.recipe.Kernel.Modules.Include, Exclude: a.recipe.Kernel.Modules.Exclude}
	wanted := slices.Concat(chosen(k.modules, choice), a.recipe.Kernel.Modules.Boot, a.recipe.Kernel.Modules.Slot)
	modules, err := k.modules.Unpack(wanted, builtin)
	if err != nil {
		return err
	}
	set := module.Set{}
	for name, m := range modules {
		set[name] = m.Info
	}
	set = set.Resolve()
	a.Log.Info("kernel modules chosen", "phase", "root", "chosen", len(set), "of", len(k.modules))
	if err := a.addModules(modules, set, k.tables); err != nil {
		return err
	}
	return a.writeEarly(modules, set)
}

func (a *assembly) readKernel(ctx context.Context) (*kernelFiles, error) {
	release := a.recipe.Kernel.Release()
	k := &kernelFiles{tables: map[string][]byte{}, modules: module.Packed{}}
	err := a.walkPackage(ctx, a.recipe.Kernel.Package, func(h *tar.Header, r io.Reader) (err error) {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		name, isModule := strings.CutPrefix(strings.TrimPrefix(h.Name, "usr/"), "lib/modules/"+release+"/")
		switch {
		case h.Name == "boot/vmlinuz-"+release:
			k.vmlinuz, err = io.ReadAll(r)
		case isModule && !strings.Contains(name, "/"):
			k.tables[name], err = io.ReadAll(r)
		case isModule:
			data, readErr := io.ReadAll(r)
			k.modules.Add(name, data)
			err = readErr
		}
		return err
	})
	if err == nil && (k.vmlinuz == nil || len(k.modules) == 0) {
		err = fmt.Errorf("package %s: it has no boot/vmlinuz-%s or no modules", a.recipe.Kernel.Package, release)
	}
	return k, err
}

// chosen returns the names of the modules whose path the filter takes.
func chosen(all module.Packed, f pattern.Filter) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if f.Takes(strings.TrimSuffix(all[name].Path, ".xz")) {
			names = append(names, name)
		}
	}
	return names
}

// builtinNames reads modules.builtin: one path a line.
func builtinNames(table []byte) func(string) bool {
	names := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(table))
	for lines.Scan() {
		names[module.Name(lines.Text())] = true
	}
	return func(name string) bool { return names[name] }
}

// addModules puts the modules, unpacked, and their tables into the root image:
// squashfs packs many of them together better than each was packed alone.
func (a *assembly) addModules(modules map[string]module.Module, set module.Set, tables map[string][]byte) error {
	dir := "usr/lib/modules/" + a.recipe.Kernel.Release() + "/"
	for _, m := range modules {
		if err := a.root.AddFile(dir+m.Path, 0o644, m.Data); err != nil {
			return err
		}
	}
	written := maps.Clone(tables)
	maps.Copy(written, ownTables(set))
	for name, data := range written {
		if err := a.root.AddFile(dir+name, 0o644, data); err != nil {
			return err
		}
	}
	return nil
}

// ownTables are the tables that depend on the choice of modules.
func ownTables(set module.Set) map[string][]byte {
	return map[string][]byte{"modules.dep": set.Dep(), "modules.alias": set.Alias(), "modules.softdep": set.SoftDep()}
}
