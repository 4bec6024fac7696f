// Package oci writes one small image as an OCI image layout in a tar file, the
// form that `ctr images import` takes. The same input gives the same bytes.
package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/image/tree"
)

// nameAnnotation carries the full image name; org.opencontainers.image.ref.name
// is only the tag. containerd imports under the former.
const nameAnnotation = "io.containerd.image.name"

// Image is a one-layer image for linux/amd64.
type Image struct {
	Name       string // slipway.local/pause:1
	Entrypoint []string
	Root       *tree.Tree
}

// blob is one content-addressed member of the layout.
type blob struct {
	ocispec.Descriptor
	data []byte
}

func newBlob(mediaType string, data []byte) blob {
	sum := sha256.Sum256(data)
	return blob{ocispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigestFromBytes(digest.SHA256, sum[:]), Size: int64(len(data))}, data}
}

func newJSON(mediaType string, v any) (blob, error) {
	data, err := json.Marshal(v)
	return newBlob(mediaType, data), err
}

// Write writes the archive. The layer is not compressed: the root image that
// holds the archive is.
func (i Image) Write(w io.Writer) error {
	var files bytes.Buffer
	if err := i.Root.WriteTar(&files); err != nil {
		return err
	}
	layer := newBlob(ocispec.MediaTypeImageLayer, files.Bytes())
	config, err := newJSON(ocispec.MediaTypeImageConfig, i.config(layer))
	if err != nil {
		return err
	}
	manifest, err := newJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config.Descriptor, Layers: []ocispec.Descriptor{layer.Descriptor}})
	if err != nil {
		return err
	}
	index, err := i.index(manifest)
	if err != nil {
		return err
	}
	return writeLayout(w, index, layer, config, manifest)
}

func (i Image) config(layer blob) ocispec.Image {
	created := time.Unix(1, 0).UTC()
	return ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		Config: ocispec.ImageConfig{Entrypoint: i.Entrypoint,
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	}
}

func (i Image) index(manifest blob) ([]byte, error) {
	d := manifest.Descriptor
	d.Platform = &ocispec.Platform{Architecture: "amd64", OS: "linux"}
	d.Annotations = map[string]string{
		nameAnnotation:            i.Name,
		ocispec.AnnotationRefName: i.Name[strings.LastIndex(i.Name, ":")+1:],
	}
	return json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
}

func writeLayout(w io.Writer, index []byte, blobs ...blob) error {
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	if err := writeFile(t, ocispec.ImageLayoutFile, layout); err != nil {
		return err
	}
	if err := writeFile(t, ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	for _, b := range blobs {
		if err := writeFile(t, "blobs/sha256/"+b.Digest.Encoded(), b.data); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeFile(t *tar.Writer, name string, data []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(1, 0).UTC()}
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err := t.Write(data)
	return err
}
