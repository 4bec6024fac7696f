// Package image turns a recipe into what a machine boots: a kernel, an initramfs
// that holds init and the compressed read-only root image, the same in parts for
// a disk, boot loaders and a manifest with their hashes. See README.md beside
// this file.
//
// It needs no root, no container engine and no chroot: files come out of
// packages into memory and from there into the image. The same commit gives the
// same bytes. Callers are `slipway image` and the tests.
package image

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"slipway/image/debian"
	"slipway/image/recipe"
)

// Builder builds images from one source tree.
type Builder struct {
	Source    string   // root of the source tree: where go.mod is
	Recipe    string   // recipe file
	Out       string   // output directory; files of an earlier build are replaced
	Cache     string   // downloads, compiled programs and root images, by hash
	Mirrors   []string // Debian archives; none: the recipe's, else those of this computer's apt
	AptDir    string   // /etc/apt
	Keyring   string   // OpenPGP keys of the archive
	Profile   Profile
	Formats   []Format  // beside PXE
	Arguments []string  // of the kernel, for the other formats: where the boot service is
	Sign      Signer    // of what UEFI firmware starts
	Version   string    // written into init and the manifest; the root image is the same for all
	Committed time.Time // when the source tree's commit was made; written like Version, zero: nobody said
	Client    *http.Client
	Log       *slog.Logger
}

// Build makes every artifact and returns the manifest it wrote beside them.
// With a warm cache it needs no network. It may be repeated: what is unchanged
// comes from the cache.
func (b *Builder) Build(ctx context.Context) (*Manifest, error) {
	r, err := recipe.Read(b.Recipe)
	if err != nil {
		return nil, err
	}
	lock, err := b.readLock(r)
	if err != nil {
		return nil, err
	}
	tmp, err := b.tempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	programs, err := b.compile(ctx, r, tmp)
	if err != nil {
		return nil, err
	}
	root, err := b.root(ctx, r, lock, programs)
	if err != nil {
		return nil, err
	}
	return b.write(ctx, r, lock, programs, root)
}

// tempDir makes a directory in the cache, so that files can be renamed into it.
func (b *Builder) tempDir() (string, error) {
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(b.Cache, "tmp-*")
}

// UpdateLock pins what the archive has now and writes the recipe's lock file.
func (b *Builder) UpdateLock(ctx context.Context) (debian.Lock, error) {
	r, err := recipe.Read(b.Recipe)
	if err != nil {
		return nil, err
	}
	keys, err := debian.ReadKeyring(b.Keyring)
	if err != nil {
		return nil, err
	}
	sources, err := b.sources(r)
	if err != nil {
		return nil, err
	}
	lock, err := debian.Update(ctx, debian.Request{Sources: sources, Suites: r.Debian.Suites, Arch: r.Debian.Architecture,
		Names: r.PackageNames(), Keys: keys, Now: time.Now(), Client: b.Client})
	if err != nil {
		return nil, fmt.Errorf("update lock: %w", err)
	}
	return lock, os.WriteFile(b.lockFile(r), lock.Encode(), 0o644)
}

func (b *Builder) lockFile(r *recipe.Recipe) string { return filepath.Join(b.Source, r.Debian.Lock) }

func (b *Builder) readLock(r *recipe.Recipe) (debian.Lock, error) {
	f, err := os.Open(b.lockFile(r))
	if err != nil {
		return nil, fmt.Errorf("read package lock (write one with `slipway image lock`): %w", err)
	}
	defer f.Close()
	lock, err := debian.ParseLock(f)
	if err != nil {
		return nil, fmt.Errorf("read package lock %s: %w", r.Debian.Lock, err)
	}
	return lock, nil
}

// sources returns where packages come from: flags, then recipe, then apt.
func (b *Builder) sources(r *recipe.Recipe) ([]debian.Source, error) {
	mirrors := b.Mirrors
	if len(mirrors) == 0 {
		mirrors = r.Debian.Mirrors
	}
	if len(mirrors) > 0 {
		return debian.MirrorSources(mirrors, r.Debian.Suites), nil
	}
	return debian.HostSources(b.AptDir)
}
