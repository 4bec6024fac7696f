package worker

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	containerdclient "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"slipway/nodeinit/supervise"
)

const (
	imagesName = "images"
	imagesDir  = "/usr/share/slipway/images"

	// criNamespace is where the kubelet's images and containers live.
	criNamespace = "k8s.io"
)

// imageLabels mark an image as the kubelet's, and as never to be removed: the
// node could not pull it again (containerd's internal/cri/labels).
//
// The kubelet passes over pinned images whatever it removes images for
// (imagesInEvictionOrder in Kubernetes' pkg/kubelet/images/image_gc_manager.go).
// Of those that pods pulled, it removes the ones that no container uses: every
// five minutes, from imageGCHighThresholdPercent down to imageGCLowThresholdPercent,
// the longest unused first (StartGarbageCollection in pkg/kubelet/kubelet.go, which
// does none of it if the former is 100); and all at once when evictionHard's
// nodefs or imagefs threshold is met, before it evicts pods, then also with 100
// (buildSignalToNodeReclaimFuncs in pkg/kubelet/eviction/helpers.go). One that was
// first seen less than two minutes ago stays (imageMinimumGCAge).
var imageLabels = map[string]string{
	"io.cri-containerd.image":  "managed",
	"io.cri-containerd.pinned": "pinned",
}

// bundledImages is the one-shot unit that gives containerd the images that the
// node's own image carries. It does not unpack them: that is done when a
// container first needs one.
func bundledImages() supervise.Unit {
	return supervise.Unit{
		Name: imagesName, After: []string{containerdName},
		Service: Importer{Socket: containerdSocket, Dir: imagesDir}, Restart: supervise.OnFailure,
	}
}

// Importer is a service that imports Dir's OCI archives (*.tar) and ends. It
// may be repeated: an archive whose images are there is left alone.
type Importer struct{ Socket, Dir string }

// Run imports. All archives are tried; the errors are joined.
func (i Importer) Run(ctx context.Context, _ func()) error {
	client, err := dial(i.Socket)
	if err != nil {
		return err
	}
	defer client.Close()
	archives, err := filepath.Glob(filepath.Join(i.Dir, "*.tar"))
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	var errs []error
	for _, path := range archives {
		if err := importArchive(ctx, client, path); err != nil {
			errs = append(errs, fmt.Errorf("import %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

func dial(socket string) (*containerdclient.Client, error) {
	client, err := containerdclient.New(socket, containerdclient.WithDefaultNamespace(criNamespace))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	return client, nil
}

func importArchive(ctx context.Context, client *containerdclient.Client, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	index, err := readIndex(file)
	if err != nil {
		return err
	}
	present, err := hasAll(ctx, client.ImageService(), index)
	if err != nil || present {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = client.Import(ctx, file, containerdclient.WithImageLabels(imageLabels))
	return err
}

// archiveIndex is what is read of an OCI archive's index.json: the name and
// digest of each image (github.com/opencontainers/image-spec/blob/main/image-layout.md).
type archiveIndex struct {
	Manifests []struct {
		Digest      string            `json:"digest"`
		Annotations map[string]string `json:"annotations"`
	} `json:"manifests"`
}

// readIndex finds index.json in the archive. The layers are skipped over.
func readIndex(archive io.Reader) (archiveIndex, error) {
	var index archiveIndex
	reader := tar.NewReader(archive)
	for {
		header, err := reader.Next()
		if err != nil {
			return index, fmt.Errorf("find index.json: %w", err)
		}
		if filepath.Clean(header.Name) != "index.json" {
			continue
		}
		if err := json.NewDecoder(reader).Decode(&index); err != nil {
			return index, fmt.Errorf("read index.json: %w", err)
		}
		return index, nil
	}
}

// names are the annotations that name an image, in containerd's order of preference.
var names = []string{images.AnnotationImageName, "org.opencontainers.image.ref.name"}

// hasAll reports whether the store has every named image of the index, as it is there.
func hasAll(ctx context.Context, store images.Store, index archiveIndex) (bool, error) {
	for _, manifest := range index.Manifests {
		for _, key := range names {
			name := manifest.Annotations[key]
			if name == "" {
				continue
			}
			image, err := store.Get(ctx, name)
			if errdefs.IsNotFound(err) {
				return false, nil
			}
			if err != nil {
				return false, fmt.Errorf("look up %s: %w", name, err)
			}
			if image.Target.Digest.String() != manifest.Digest {
				return false, nil
			}
			break
		}
	}
	return true, nil
}
