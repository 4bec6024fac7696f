package verity

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"slipway/test/need"
)

// image writes size bytes that look random and returns the file's name.
func image(t *testing.T, size int) string {
	t.Helper()
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	name := filepath.Join(t.TempDir(), "root.squashfs")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestBuild(t *testing.T) {
	from := image(t, 300*BlockSize+1) // three levels would need 16,384 blocks; this is two
	to := from + ".img"
	root, err := Build(from, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	if root.DataSize != 301*BlockSize || len(root.Hash) != 64 {
		t.Errorf("got %+v", root)
	}
	data, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	original, _ := os.ReadFile(from)
	if !bytes.HasPrefix(data, original) || string(data[root.DataSize:root.DataSize+6]) != "verity" {
		t.Error("the file is not the image with a superblock behind it")
	}
	again, err := Build(from, to+"2", nil)
	if err != nil || again != root {
		t.Errorf("a second build gave %+v, %v; want %+v", again, err, root)
	}
	second, _ := os.ReadFile(to + "2")
	if !bytes.Equal(data, second) {
		t.Error("two builds of one image differ")
	}
}

// TestVeritysetupAgrees lets the reference implementation check the tree.
func TestVeritysetupAgrees(t *testing.T) {
	need.Programs(t, "veritysetup")
	from := image(t, 300*BlockSize)
	to := from + ".img"
	root, err := Build(from, to, []byte("salt"))
	if err != nil {
		t.Fatal(err)
	}
	verify := func() error {
		return exec.CommandContext(t.Context(), "veritysetup", "verify", to, to, root.Hash, "--hash-offset="+strconv.FormatInt(root.DataSize, 10)).Run()
	}
	if err := verify(); err != nil {
		t.Errorf("veritysetup refuses the tree: %v", err)
	}
	f, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("flipped"), 7*BlockSize); err != nil {
		t.Fatal(err)
	}
	if verify() == nil {
		t.Error("veritysetup accepts a changed block")
	}
}

func TestBuildRefusesNothing(t *testing.T) {
	from := image(t, 0)
	if _, err := Build(from, from+".img", nil); err == nil {
		t.Error("an empty image was accepted")
	}
	if _, err := Build(from+"-missing", from+".img", nil); err == nil {
		t.Error("a missing image was accepted")
	}
}
