package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/configs/disklayout"
)

// Errors of an image, for callers that tell a person what to do.
var (
	ErrArchitecture = errors.New("the image is for another kind of computer")
	ErrOlder        = errors.New("the image is older than the running system")
	ErrTooSmall     = errors.New("the disk is too small for the image")
	ErrTruncated    = errors.New("the download ended too early")
	ErrHash         = errors.New("the download is not what its manifest says")
	ErrDamaged      = errors.New("what was read back from the disk is not what was written")
)

// Image is what an image's manifest.json says that an installation needs.
type Image struct {
	Version      string     `json:"version"`
	Committed    time.Time  `json:"committed,omitzero"` // see Build
	Architecture string     `json:"architecture"`       // as Go names it
	Kubernetes   string     `json:"kubernetesVersion"`  // v1.37.1
	Artifacts    []Artifact `json:"artifacts"`
	Root         struct {
		Hash     string `json:"hash"`     // root hash of the dm-verity tree, in hex
		DataSize int64  `json:"dataSize"` // where the hash area begins in root.img
	} `json:"root"`

	// SHA256 is the manifest's own, in hex: the name of the image.
	SHA256 string `json:"-"`
}

// Build says how old a system is.
type Build struct {
	Version   string
	Committed time.Time // when the commit was made that it was built from; zero: not known
}

// Artifact is one file of an image.
type Artifact struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

const (
	manifestName = "manifest.json"
	manifestMost = 1 << 20
	rootArtifact = "root.img"
)

// FetchImage reads the manifest from a source. want is its SHA-256 in hex;
// empty takes any.
func FetchImage(ctx context.Context, from Source, want string) (*Image, error) {
	body, err := from.open(ctx, manifestName)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", manifestName, err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, manifestMost+1))
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", manifestName, err)
	}
	sum := sha256.Sum256(data)
	im := &Image{SHA256: hex.EncodeToString(sum[:])}
	if want != "" && want != im.SHA256 {
		return nil, fmt.Errorf("fetch %s: %w: its SHA-256 is %s, %s was asked for", manifestName, ErrHash, im.SHA256, want)
	}
	if err := json.Unmarshal(data, im); err != nil {
		return nil, fmt.Errorf("read %s: %w", manifestName, err)
	}
	return im, nil
}

// Find returns an artifact.
func (im *Image) Find(name string) (Artifact, error) {
	for _, a := range im.Artifacts {
		if a.Name == name {
			return a, nil
		}
	}
	return Artifact{}, fmt.Errorf("the image has no %s", name)
}

// Check refuses, before anything is written, an image that this machine could
// not run or should not: one of another architecture, without a part that it
// needs, larger than a slot, or older than what runs. With force the age does not
// matter. needs are the boot files.
func (im *Image) Check(architecture string, running Build, force bool, needs []string) error {
	if im.Architecture != architecture {
		return fmt.Errorf("%w: it is for %q, this is %s", ErrArchitecture, im.Architecture, architecture)
	}
	if build := (Build{im.Version, im.Committed}); !force && build.olderThan(running) {
		return fmt.Errorf("%w: %s, and %s runs; if you mean it, slipway node upgrade --older", ErrOlder, build, running)
	}
	for _, name := range append([]string{rootArtifact}, needs...) {
		if _, err := im.Find(name); err != nil {
			return err
		}
	}
	if hash, err := hex.DecodeString(im.Root.Hash); err != nil || len(hash) != sha256.Size {
		return errors.New("the image's manifest has no root hash")
	}
	root, _ := im.Find(rootArtifact) // was found above
	return fits(root, disklayout.SlotBytes)
}

func fits(a Artifact, room int64) error {
	if a.Size > room {
		return fmt.Errorf("%w: %s has %d bytes, the slot %d", ErrTooSmall, a.Name, a.Size, room)
	}
	return nil
}

// olderThan compares the versions v1.2.3 of two builds. What follows there, as in
// v1.2.3-14-gabcdef, does not count, and a version of another form, such as a bare
// commit, has no order. Where versions do not tell, the times of the commits do,
// if both are known; two builds of one commit are as old as each other.
func (b Build) olderThan(o Build) bool {
	mine, ok := numbers(b.Version)
	other, okOther := numbers(o.Version)
	if ok && okOther && mine != other {
		return slices.Compare(mine[:], other[:]) < 0
	}
	return !b.Committed.IsZero() && b.Committed.Before(o.Committed)
}

// String is the build for people.
func (b Build) String() string {
	if b.Committed.IsZero() {
		return b.Version
	}
	return b.Version + " of " + b.Committed.UTC().Format("2006-01-02 15:04 MST")
}

func numbers(version string) (n [3]int, ok bool) {
	core, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	parts := strings.Split(core, ".")
	if len(parts) != len(n) {
		return n, false
	}
	for i, part := range parts {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil {
			return n, false
		}
	}
	return n, true
}
