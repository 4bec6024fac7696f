// Package payload finds the payload binary, which is every upstream program of a
// node, for tests that run one of them on this computer. It builds nothing.
package payload

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"slipway/test/need"
)

// Path is the built payload binary; without one the test is skipped, or fails, as
// package need says.
// SLIPWAY_IMAGE names another image than the one make image builds.
func Path(t testing.TB) string {
	t.Helper()
	image := os.Getenv("SLIPWAY_IMAGE")
	if image == "" {
		image = filepath.Join(repository(t), ".build", "image")
	}
	path, err := filepath.Abs(filepath.Join(image, "bin", "multicall"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		need.Lacking(t, "needs the payload binary %s: make image builds it", path)
	}
	return path
}

// Link makes a folder in which the payload binary has the programs' names, by
// which it knows what it is to be.
func Link(t testing.TB, programs ...string) (dir string) {
	t.Helper()
	binary := Path(t)
	dir = t.TempDir()
	for _, name := range programs {
		if err := os.Symlink(binary, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// repository is the folder with go.mod: tests run in their package's.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("find go.mod: none at or above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}
