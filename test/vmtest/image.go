package vmtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/image"
	"slipway/image/uki"
	"slipway/image/verity"
	"slipway/qemu"
)

// Media makes a raw disk ("raw") or an ISO ("iso") of the lab's image, for its boot service.
func (l *Lab) Media(t *testing.T, format, path string) {
	t.Helper()
	l.CLI(t, "image", "media", "--image", l.image, "--format", format, "--out", path)
}

// CopyImage makes a copy of the built image, for Flags("--image", copy). Vary may change it.
func CopyImage(t *testing.T) string {
	t.Helper()
	_, built, err := built(true)
	if err != nil {
		unavailable(t, err)
	}
	dir := filepath.Join(t.TempDir(), "image")
	if err := os.CopyFS(dir, os.DirFS(built)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Vary turns the image in a folder into another version of it, which boots with more kernel
// arguments from a disk, and restarts the boot service with it. Its programs are the same.
func (l *Lab) Vary(t *testing.T, dir, version, arguments string) {
	t.Helper()
	if err := vary(dir, version, arguments); err != nil {
		t.Fatal(err)
	}
	if err := l.Service(t.Context(), qemu.PowerCycle); err != nil {
		t.Fatal(err)
	}
	l.Await(t, "the boot service serves "+version, time.Minute, func() error {
		_, err := l.TryCLI("machines", "list")
		return err
	})
}

func vary(dir, version, arguments string) error {
	m, err := image.ReadManifest(dir)
	if err != nil {
		return err
	}
	data, root := filepath.Join(dir, "data"), filepath.Join(dir, image.RootImage)
	if err := os.Rename(root, data); err != nil {
		return err
	}
	defer os.Remove(data)
	if err := os.Truncate(data, m.Root.DataSize); err != nil {
		return err
	}
	m.Version = version
	if m.Root, err = verity.Build(data, root, []byte(version)); err != nil {
		return err
	}
	line := m.DiskArguments() + " " + arguments
	unified, err := os.ReadFile(filepath.Join(dir, image.UKI))
	if err != nil {
		return err
	}
	if unified, err = uki.WithCommandLine(unified, line); err != nil {
		return err
	}
	for name, content := range map[string][]byte{image.UKI: unified, image.ArgumentsDisk: []byte(line + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return relist(dir, m, image.RootImage, image.UKI, image.ArgumentsDisk)
}

// relist writes the manifest anew, with the artifacts that changed.
func relist(dir string, m *image.Manifest, changed ...string) error {
	for _, name := range changed {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		for i, a := range m.Artifacts {
			if a.Name == name {
				sum := sha256.Sum256(data)
				m.Artifacts[i].Size, m.Artifacts[i].SHA256 = int64(len(data)), hex.EncodeToString(sum[:])
			}
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, image.ManifestName), text, 0o644)
}
