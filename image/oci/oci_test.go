package oci

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"slipway/image/tree"
)

func archive(t *testing.T) []byte {
	t.Helper()
	root := tree.New()
	if err := root.AddFile("/pause", 0o755, []byte("program")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := (Image{Name: "slipway.local/pause:1", Entrypoint: []string{"/pause"}, Root: root}).Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpack writes an archive's members below a directory.
func unpack(t *testing.T, data []byte) string {
	t.Helper()
	dir := t.TempDir()
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWriteIsValid reads the archive with a library that is not ours.
func TestWriteIsValid(t *testing.T) {
	index, err := layout.ImageIndexFromPath(unpack(t, archive(t)))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	d := manifest.Manifests[0]
	if got := d.Annotations["io.containerd.image.name"]; got != "slipway.local/pause:1" {
		t.Errorf("the name is %q", got)
	}
	image, err := index.Image(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	checkLayer(t, image)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != "amd64" || len(config.Config.Entrypoint) != 1 || config.Config.Entrypoint[0] != "/pause" {
		t.Errorf("the config is %+v", config)
	}
}

// checkLayer expects one layer that is not compressed and holds /pause.
func checkLayer(t *testing.T, image v1.Image) {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	stored, err := layers[0].Compressed() // as it is in the archive
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(stored)
	if err != nil {
		t.Fatal(err)
	}
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if declared, err := layers[0].Digest(); err != nil || declared != digest || config.RootFS.DiffIDs[0] != digest {
		t.Errorf("the layer's %d bytes have digest %s; declared are %s and %s (%v)", size, digest, declared, config.RootFS.DiffIDs[0], err)
	}
	if h, err := tar.NewReader(bytes.NewReader(data)).Next(); err != nil || h.Name != "pause" {
		t.Errorf("the layer begins with %+v, %v", h, err)
	}
}

func TestWriteIsReproducible(t *testing.T) {
	if !bytes.Equal(archive(t), archive(t)) {
		t.Error("two archives of the same image differ")
	}
}
