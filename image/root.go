package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/image/debian"
	"slipway/image/elflib"
	"slipway/image/gobuild"
	"slipway/image/oci"
	"slipway/image/recipe"
	"slipway/image/tree"
)

// rootImage is a directory of the cache with everything that does not depend on
// init: root.squashfs, kernel, stub, early/, early.disk/ and loaders/.
type rootImage struct{ dir string }

func (r *rootImage) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

// root returns the root image of the recipe: from the cache when nothing that
// goes into it changed.
func (b *Builder) root(ctx context.Context, r *recipe.Recipe, lock debian.Lock, built programs) (*rootImage, error) {
	key, err := b.rootKey(ctx, r, lock, built)
	if err != nil {
		return nil, fmt.Errorf("hash the root image's inputs: %w", err)
	}
	root := &rootImage{dir: filepath.Join(b.Cache, "root", key)}
	if _, err := os.Stat(root.path("root.squashfs")); err == nil {
		b.Log.Info("root image is cached", "phase", "root")
		now := time.Now()
		return root, os.Chtimes(root.dir, now, now) // keeps it from being pruned
	}
	if err := prune(filepath.Dir(root.dir), time.Now().Add(-keepRoots)); err != nil {
		return nil, fmt.Errorf("prune old root images: %w", err)
	}
	tmp, err := b.tempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	a := &assembly{Builder: b, recipe: r, lock: lock, programs: built, dir: tmp, root: tree.New("bin", "sbin", "lib", "lib64")}
	if err := a.run(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(root.dir), 0o755), os.Chmod(tmp, 0o755)); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, root.dir); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return root, nil
}

// keepRoots is how long an unused root image stays in the cache.
const keepRoots = 7 * 24 * time.Hour

// prune removes what was last used before a time.
func prune(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.ModTime().Before(before) {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// rootKey hashes what decides the root image: the recipe without init and kernel
// arguments, lock, programs, profile, and the builder's own source.
func (b *Builder) rootKey(ctx context.Context, r *recipe.Recipe, lock debian.Lock, built programs) (string, error) {
	h := sha256.New()
	tool, err := squashVersion(ctx)
	if err != nil {
		return "", err
	}
	inside := *r
	inside.Init, inside.Kernel.Arguments = recipe.Program{}, nil
	document, err := json.Marshal(inside)
	if err != nil {
		return "", err
	}
	fmt.Fprintln(h, tool, squashArguments("", b.Profile))
	fmt.Fprintf(h, "%s\n%s\n", document, lock.Encode())
	for _, name := range slices.Sorted(maps.Keys(built)) {
		if name == r.Init.Import {
			continue
		}
		_, sum, err := hashFile(built[name])
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, name, sum)
	}
	err = gobuild.HashFiles(h, filepath.Join(b.Source, "image"), isBuilder)
	return hex.EncodeToString(h.Sum(nil))[:32], err
}

// isBuilder reports whether a file below image/ is part of the builder itself.
func isBuilder(name string) bool {
	dir, _, _ := strings.Cut(filepath.ToSlash(name), "/")
	other := []string{"payload", "pause", "testdata", "uki", "grub", "media", "verity"} // the last four: beside the root image
	return filepath.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") && !slices.Contains(other, dir)
}

// assembly is one root image being made in a directory.
type assembly struct {
	*Builder
	recipe   *recipe.Recipe
	lock     debian.Lock
	programs programs
	dir      string
	root     *tree.Tree
	store    debian.Store
}

// run performs the steps in order; each one names what it does.
func (a *assembly) run(ctx context.Context) error {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"packages", a.openStore},
		{"kernel", a.addKernel},
		{"debian files", a.addPackages},
		{"loaders", a.copyLoaders},
		{"programs", a.addPrograms},
		{"images", a.addImages},
		{"files", a.addFiles},
		{"libraries", a.checkLibraries},
		{"squashfs", a.pack},
	}
	for _, s := range steps {
		start := time.Now()
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("root image: %s: %w", s.name, err)
		}
		a.Log.Info("root image step done", "phase", "root", "step", s.name, "took", time.Since(start).Round(time.Millisecond))
	}
	return nil
}

func (a *assembly) addPrograms(context.Context) error {
	for _, p := range a.recipe.Payload.Programs {
		if err := a.root.Add(p.Path, tree.Entry{Mode: 0o755, Source: a.programs[p.Import]}); err != nil {
			return err
		}
		for _, link := range p.Links {
			if err := a.root.AddLink(link, p.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// addImages writes the recipe's OCI images to /usr/share/slipway/images.
func (a *assembly) addImages(ctx context.Context) error {
	for _, m := range a.recipe.Images {
		files := tree.New()
		for _, f := range m.Files {
			if err := a.addImageFile(ctx, files, f); err != nil {
				return fmt.Errorf("image %s: %w", m.Name, err)
			}
		}
		var archive bytes.Buffer
		if err := (oci.Image{Name: m.Name, Entrypoint: m.Entrypoint, Root: files}).Write(&archive); err != nil {
			return fmt.Errorf("image %s: %w", m.Name, err)
		}
		name := strings.NewReplacer("/", "_", ":", "_").Replace(m.Name) + ".tar"
		if err := a.root.AddFile("usr/share/slipway/images/"+name, 0o644, archive.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembly) addImageFile(ctx context.Context, files *tree.Tree, f recipe.ImageSource) error {
	perm, err := recipe.Perm(f.Mode, 0o755)
	if err != nil {
		return err
	}
	if f.Directory {
		return files.AddDir(f.Path, perm)
	}
	var data []byte
	if f.Program != "" {
		data, err = os.ReadFile(a.programs[f.Program])
	} else {
		data, err = a.packageFile(ctx, f.Package, f.File)
	}
	if err != nil {
		return err
	}
	if err := files.AddFile(f.Path, perm, data); err != nil {
		return err
	}
	for _, link := range f.Links {
		if err := files.AddLink(link, f.Path); err != nil {
			return err
		}
	}
	return nil
}

// addFiles adds what the recipe writes out itself.
func (a *assembly) addFiles(context.Context) error {
	for _, f := range a.recipe.Files {
		if err := a.addFile(f); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembly) addFile(f recipe.File) error {
	def := os.FileMode(0o644)
	if f.Directory {
		def = 0o755
	}
	perm, err := recipe.Perm(f.Mode, def)
	if err != nil {
		return err
	}
	switch {
	case f.Directory:
		return a.root.AddDir(f.Path, perm)
	case f.Target != "":
		return a.root.AddLink(f.Path, f.Target)
	}
	return a.root.AddFile(f.Path, perm, []byte(f.Content))
}

func (a *assembly) checkLibraries(context.Context) error {
	return elflib.Check(a.root, "usr", "opt")
}

// pack writes the root image.
func (a *assembly) pack(ctx context.Context) error {
	return squash(ctx, a.root, filepath.Join(a.dir, "root.squashfs"), a.Profile)
}

// writeTo writes one file of the root image's cache directory.
func (a *assembly) writeTo(name string, r io.Reader) error {
	_, _, err := writeFile(filepath.Join(a.dir, filepath.FromSlash(name)), 0o644, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
	return err
}
