package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"slipway/image/debian"
	"slipway/image/pattern"
	"slipway/image/recipe"
	"slipway/image/tree"
)

// openStore finds the mirrors; a build whose cache is complete never asks them.
func (a *assembly) openStore(context.Context) error {
	sources, err := a.sources(a.recipe)
	if err != nil {
		return err
	}
	a.store = debian.Store{Dir: filepath.Join(a.Cache, "debian"), Client: a.Client,
		Mirrors: debian.Mirrors(sources, a.recipe.Debian.Suites)}
	return nil
}

// walkPackage calls visit for every file of a pinned package and keeps its
// licence.
func (a *assembly) walkPackage(ctx context.Context, name string, visit func(h *tar.Header, r io.Reader) error) error {
	pin, err := a.lock.Find(name)
	if err != nil {
		return err
	}
	file, err := a.store.Fetch(ctx, pin)
	if err != nil {
		return err
	}
	return debian.Walk(file, func(h *tar.Header, r io.Reader) error {
		if err := a.keepLicence(name, h, r); err != nil {
			return err
		}
		return visit(h, r)
	})
}

// keepLicence copies a package's copyright file into the root image. Some
// packages share the one of another package of the same source through a link.
func (a *assembly) keepLicence(name string, h *tar.Header, r io.Reader) error {
	doc, target := "usr/share/doc/"+name, "usr/share/slipway/licenses/"+name
	switch {
	case h.Name == doc+"/copyright" && h.Typeflag == tar.TypeReg:
		if _, twice := a.root.Get(target); twice {
			return nil
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return a.root.AddFile(target, 0o644, data)
	case h.Name == doc && h.Typeflag == tar.TypeSymlink:
		return a.root.AddLink(target, path.Base(h.Linkname))
	}
	return nil
}

// addPackages takes the files that the recipe names out of each package. A
// pattern that takes nothing is an error: the package changed.
func (a *assembly) addPackages(ctx context.Context) error {
	for _, p := range a.recipe.Debian.Packages {
		used := make([]bool, len(p.Files))
		err := a.walkPackage(ctx, p.Name, func(h *tar.Header, r io.Reader) error {
			if !takes(p, used, h.Name) {
				return nil
			}
			return a.addEntry(h, r)
		})
		if err != nil {
			return fmt.Errorf("package %s: %w", p.Name, err)
		}
		for i, ok := range used {
			if !ok {
				return fmt.Errorf("package %s: it has no file %s", p.Name, p.Files[i])
			}
		}
	}
	return nil
}

// takes notes which patterns took a file.
func takes(p recipe.Package, used []bool, name string) bool {
	any := false
	for i, f := range p.Files {
		if pattern.Match(f, name) {
			used[i], any = true, true
		}
	}
	return any
}

// addEntry copies one package entry. Owners become root and set-user-ID bits go:
// on a node everything that runs a program is root already.
func (a *assembly) addEntry(h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return a.root.AddDir(h.Name, h.FileInfo().Mode().Perm())
	case tar.TypeSymlink:
		return a.root.AddLink(h.Name, h.Linkname)
	case tar.TypeLink:
		return a.root.AddLink(h.Name, "/"+path.Clean(h.Linkname))
	case tar.TypeReg:
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return a.root.Add(h.Name, tree.Entry{Mode: h.FileInfo().Mode().Perm(), Data: data})
	}
	return fmt.Errorf("entry %s has type %q, which an image cannot hold", h.Name, h.Typeflag)
}

// packageFile returns the content of one regular file of a package.
func (a *assembly) packageFile(ctx context.Context, pkg, file string) ([]byte, error) {
	var data []byte
	err := a.walkPackage(ctx, pkg, func(h *tar.Header, r io.Reader) (err error) {
		if h.Name != file || h.Typeflag != tar.TypeReg {
			return nil
		}
		data, err = io.ReadAll(r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("package %s: %w", pkg, err)
	}
	if data == nil {
		return nil, fmt.Errorf("package %s: it has no file %s", pkg, file)
	}
	return data, nil
}

// copyLoaders puts the boot loaders beside the image, and the UEFI stub.
func (a *assembly) copyLoaders(ctx context.Context) error {
	for _, l := range a.recipe.Loaders {
		if err := a.copyLoader(ctx, l, "loaders/"+path.Base(l.File)); err != nil {
			return err
		}
	}
	return a.copyLoader(ctx, a.recipe.Stub, "stub")
}

func (a *assembly) copyLoader(ctx context.Context, l recipe.Loader, to string) error {
	data, err := a.packageFile(ctx, l.Package, strings.TrimPrefix(l.File, "/"))
	if err != nil {
		return err
	}
	return a.writeTo(to, bytes.NewReader(data))
}
