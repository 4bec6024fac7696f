package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/image/debian"
	"slipway/image/recipe"
	"slipway/image/verity"
)

// ManifestName is the manifest's file name in an output directory.
const ManifestName = "manifest.json"

// Manifest says what an output directory holds and what it was made of.
type Manifest struct {
	Version string `json:"version"`
	// Committed is when the commit was made that the image was built from: it
	// tells which of two images is older whose versions do not.
	Committed time.Time `json:"committed,omitzero"`
	// Architecture is what the image runs on, as Go and Debian name it: amd64.
	Architecture string `json:"architecture"`
	Kernel       string `json:"kernelRelease"`
	// Kubernetes is the version that the payload calls itself, v1.37.1.
	Kubernetes string      `json:"kubernetesVersion"`
	Arguments  []string    `json:"kernelArguments"`
	Profile    Profile     `json:"profile"`
	Root       verity.Root `json:"root"` // of root.img
	Artifacts  []Artifact  `json:"artifacts"`
	Packages   []Package   `json:"packages"`
}

// Artifact is one file of the output directory.
type Artifact struct {
	Name   string `json:"name"` // path below the directory, with slashes
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Package is one Debian package that files were taken from.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
}

func packageList(r *recipe.Recipe, lock debian.Lock) []Package {
	var list []Package
	for _, name := range r.PackageNames() {
		if pin, err := lock.Find(name); err == nil {
			list = append(list, Package{Name: name, Version: pin.Version, SHA256: pin.SHA256})
		}
	}
	return list
}

// DiskArguments is the kernel command line of an installed machine. Its root
// hash is what the machine trusts a slot by.
func (m *Manifest) DiskArguments() string {
	return strings.Join(append(slices.Clone(m.Arguments), "slipway.root="+m.Root.Hash, fmt.Sprintf("slipway.root-size=%d", m.Root.DataSize)), " ")
}

// Find returns the artifact of a name.
func (m *Manifest) Find(name string) (Artifact, bool) {
	for _, a := range m.Artifacts {
		if a.Name == name {
			return a, true
		}
	}
	return Artifact{}, false
}

func (m *Manifest) write(dir string) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ManifestName), append(data, '\n'), 0o644)
}

// ReadManifest reads the manifest of an output directory.
func ReadManifest(dir string) (*Manifest, error) {
	var m Manifest
	if err := readJSON(filepath.Join(dir, ManifestName), &m); err != nil {
		return nil, fmt.Errorf("read image manifest (build one with `slipway image build`): %w", err)
	}
	return &m, nil
}

// readJSON decodes a file strictly.
func readJSON(file string, into any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

// Verify reads an output directory and compares every artifact with the
// manifest. The error names each file that differs.
func Verify(dir string) (*Manifest, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range m.Artifacts {
		if !fs.ValidPath(a.Name) {
			errs = append(errs, fmt.Errorf("verify %s: the name leaves the directory", a.Name))
			continue
		}
		size, sum, err := hashFile(filepath.Join(dir, filepath.FromSlash(a.Name)))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("verify %s: %w", a.Name, err))
		case size != a.Size || sum != a.SHA256:
			errs = append(errs, fmt.Errorf("verify %s: it has %d bytes with SHA-256 %s, the manifest wants %d bytes with %s",
				a.Name, size, sum, a.Size, a.SHA256))
		}
	}
	return m, errors.Join(errs...)
}

func hashFile(name string) (size int64, sum string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return size, hex.EncodeToString(h.Sum(nil)), err
}

// artifacts writes files into a directory and notes their hashes. After the
// first error it does nothing more.
type artifacts struct {
	dir  string
	list []Artifact
	err  error
}

func (o *artifacts) copy(name, from string, perm fs.FileMode) {
	o.createMode(name, perm, func(w io.Writer) error {
		f, err := os.Open(from)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
}

// file is create for a writer that needs a file's name: it may leave holes in
// it.
func (o *artifacts) file(name string, write func(path string) error) {
	if o.err != nil {
		return
	}
	path := filepath.Join(o.dir, filepath.FromSlash(name))
	tmp := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	defer os.Remove(tmp)
	a := Artifact{Name: name}
	if o.err = write(tmp); o.err == nil {
		a.Size, a.SHA256, o.err = hashFile(tmp)
	}
	if o.err == nil {
		o.err = os.Rename(tmp, path)
	}
	if o.err != nil {
		o.err = fmt.Errorf("write %s: %w", path, o.err)
		return
	}
	o.list = append(o.list, a)
}

func (o *artifacts) bytes(name string, data []byte) {
	o.create(name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func (o *artifacts) create(name string, write func(io.Writer) error) {
	o.createMode(name, 0o644, write)
}

// createMode writes to a temporary name first, so that a reader of the
// directory never sees half a file.
func (o *artifacts) createMode(name string, perm fs.FileMode, write func(io.Writer) error) {
	if o.err != nil {
		return
	}
	path := filepath.Join(o.dir, filepath.FromSlash(name))
	a := Artifact{Name: name}
	if a.Size, a.SHA256, o.err = writeFile(path, perm, write); o.err != nil {
		o.err = fmt.Errorf("write %s: %w", path, o.err)
		return
	}
	o.list = append(o.list, a)
}

func writeFile(path string, perm fs.FileMode, write func(io.Writer) error) (size int64, sum string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, "", err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return 0, "", err
	}
	defer os.Remove(tmp.Name())
	h := sha256.New()
	err = write(io.MultiWriter(tmp, h))
	info, statErr := tmp.Stat()
	if err = errors.Join(err, statErr, tmp.Chmod(perm), tmp.Close()); err != nil {
		return 0, "", err
	}
	return info.Size(), hex.EncodeToString(h.Sum(nil)), os.Rename(tmp.Name(), path)
}
