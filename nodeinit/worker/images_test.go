package worker

import (
	"archive/tar"
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	index   = `{"manifests":[{"digest":"` + digestA + `","annotations":{"org.opencontainers.image.ref.name":"slipway.local/pause:1"}}]}`
)

func archive(t *testing.T, files ...string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestReadIndex(t *testing.T) {
	got, err := readIndex(archive(t, "blobs/sha256/a", "layer", "./index.json", index))
	if err != nil || len(got.Manifests) != 1 || got.Manifests[0].Digest != digestA {
		t.Errorf("readIndex = %v, %v", got, err)
	}
	for want, file := range map[string]*bytes.Buffer{
		"find index.json: EOF": archive(t, "blobs/sha256/a", "layer"),
		"read index.json":      archive(t, "index.json", "{"),
		"find index.json":      bytes.NewBufferString(strings.Repeat("no tar", 200)),
	} {
		if _, err := readIndex(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("readIndex = %v, want %s", err, want)
		}
	}
}

// store holds images by name; what is not overridden is not called.
type store struct {
	images.Store
	digests map[string]string
}

func (s store) Get(_ context.Context, name string) (images.Image, error) {
	image := images.Image{Name: name}
	text, ok := s.digests[name]
	if !ok {
		return image, errdefs.ErrNotFound
	}
	image.Target.Digest = digest.Digest(text)
	return image, nil
}

func TestHasAll(t *testing.T) {
	wanted, err := readIndex(archive(t, "index.json", index))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		digests map[string]string
		want    bool
	}{
		"empty store":      {nil, false},
		"another version":  {map[string]string{"slipway.local/pause:1": digestB}, false},
		"the same":         {map[string]string{"slipway.local/pause:1": digestA}, true},
		"under other name": {map[string]string{"slipway.local/pause:2": digestA}, false},
	}
	for name, test := range tests {
		got, err := hasAll(t.Context(), store{digests: test.digests}, wanted)
		if err != nil || got != test.want {
			t.Errorf("%s: hasAll = %v, %v, want %v", name, got, err, test.want)
		}
	}
}
