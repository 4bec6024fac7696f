package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// startable are the artifacts that UEFI firmware starts, itself or for a loader,
// and whose signature it looks at when Secure Boot is on. What they start is
// inside them: of an installed machine, all of kernel, initramfs and command line.
var startable = []string{Kernel, UKI, SystemdBoot, GRUBToDisk, "loaders/snponly.efi"}

// Signer is a program that signs the UEFI program whose path is its one
// argument, in place. The keys are its own affair. Empty: nothing is signed.
type Signer string

// sign signs a file.
func (s Signer) sign(ctx context.Context, path string) error {
	if s == "" {
		return nil
	}
	if out, err := exec.CommandContext(ctx, string(s), path).CombinedOutput(); err != nil {
		return fmt.Errorf("sign %s with %s: %w\n%s", filepath.Base(path), s, err, bytes.TrimSpace(out))
	}
	return nil
}

// signed is what a program in memory becomes.
func (s Signer) signed(ctx context.Context, name string, program []byte) ([]byte, error) {
	if s == "" {
		return program, nil
	}
	dir, err := os.MkdirTemp("", "slipway-sign-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, program, 0o600); err != nil {
		return nil, err
	}
	if err := s.sign(ctx, path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// sign signs what was written. It is called before media are made of that.
func (o *artifacts) sign(ctx context.Context, s Signer) {
	if s == "" {
		return
	}
	for _, name := range startable {
		at := slices.IndexFunc(o.list, func(a Artifact) bool { return a.Name == name })
		if o.err != nil || at < 0 {
			continue
		}
		data, err := os.ReadFile(filepath.Join(o.dir, filepath.FromSlash(name)))
		if err == nil {
			data, err = s.signed(ctx, filepath.Base(name), data)
		}
		if err != nil {
			o.err = err
			return
		}
		o.list = slices.Delete(o.list, at, at+1)
		o.bytes(name, data)
	}
}
