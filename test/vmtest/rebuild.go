package vmtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/qemu"
)

// Recipe changes the recipe of an image: what Old says, it says New then.
type Recipe struct{ Old, New string }

// BuildImage builds another image than the one that the lab began with, and returns its
// folder, which stays as long as the lab. The root image is the same, so that it takes
// seconds; the root hash is another.
func (l *Lab) BuildImage(t *testing.T, change Recipe) string {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	recipe, err := os.ReadFile(filepath.Join(root, "configs", "examples", "image.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(recipe), change.Old) != 1 {
		t.Fatalf("the recipe does not say once: %s", change.Old)
	}
	dir, err := os.MkdirTemp(l.state, "image-*")
	if err != nil {
		t.Fatal(err)
	}
	file, out := filepath.Join(dir, "image.yaml"), filepath.Join(dir, "image")
	if err := os.WriteFile(file, []byte(strings.Replace(string(recipe), change.Old, change.New, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), l.bin, "image", "build", "--source", root, "--recipe", file, "--out", out)
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build an image with %s: %v\n%s", change.New, err, said)
	}
	return out
}

// Serve has the lab's boot service serve another image from now on.
func (l *Lab) Serve(t *testing.T, image string) {
	t.Helper()
	link := filepath.Join(l.state, imageLink)
	if err := os.Symlink(image, link+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		t.Fatal(err)
	}
	if err := l.Service(context.Background(), qemu.PowerCycle); err != nil {
		t.Fatalf("start the boot service with another image: %v", err)
	}
}

// imageLink leads to the image that the lab serves.
const imageLink = "image"
