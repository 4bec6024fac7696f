package bootsvc

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"slipway/bootsvc/firmware"
	"slipway/bootsvc/httpd"
)

// manifest is what the boot service needs of an image's manifest.json; slipway
// image build writes it.
type manifest struct {
	Version    string `json:"version"`
	Kubernetes string `json:"kubernetesVersion"`
	Root       struct {
		Hash string `json:"hash"`
	} `json:"root"`
	Kernel    string   `json:"kernelRelease"`
	Arguments []string `json:"kernelArguments"`
	Artifacts []struct {
		Name   string `json:"name"`
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	} `json:"artifacts"`
}

// artifacts is an image, ready to be served.
type artifacts struct {
	manifest
	digest  string                // SHA-256 of manifest.json, hex
	web     map[string]httpd.File // by URL path
	loaders map[string][]byte     // by TFTP name
}

// loadImage reads the image folder. Everything that machines need must be
// there, so that a missing file stops the start and not a machine's boot.
func loadImage(dir string) (artifacts, error) {
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return artifacts{}, fmt.Errorf("read image: %w: build it with slipway image build --out %s, or name another folder with --image", err, dir)
	}
	if err != nil {
		return artifacts{}, fmt.Errorf("read image: %w", err)
	}
	sum := sha256.Sum256(text)
	a := artifacts{digest: hex.EncodeToString(sum[:]), web: map[string]httpd.File{}, loaders: map[string][]byte{}}
	if err := json.Unmarshal(text, &a.manifest); err != nil {
		return artifacts{}, fmt.Errorf("read image: %s/manifest.json: %w", dir, err)
	}
	a.web["/image/manifest.json"] = httpd.File{Path: filepath.Join(dir, "manifest.json"), SHA256: a.digest}
	for _, one := range a.Artifacts {
		if !filepath.IsLocal(one.Name) {
			return artifacts{}, fmt.Errorf("read image: %s/manifest.json lists %q: not a file below it", dir, one.Name)
		}
		file := httpd.File{Path: filepath.Join(dir, filepath.FromSlash(one.Name)), SHA256: one.SHA256}
		info, err := os.Stat(file.Path)
		if err != nil {
			return artifacts{}, fmt.Errorf("read image: %w: build it again", err)
		}
		if info.Size() != one.Size {
			return artifacts{}, fmt.Errorf("read image: %s has %d bytes and not the manifest's %d: build it again", file.Path, info.Size(), one.Size)
		}
		if err := a.add(one.Name, file); err != nil {
			return artifacts{}, err
		}
	}
	return a, a.complete(dir)
}

// served says whether machines ask for an artifact by its name below /image/:
// to boot, to install or to upgrade themselves. Programs are in the root image, and
// media are for people.
func served(name string) bool {
	switch filepath.Ext(name) {
	case ".raw", ".iso":
		return false
	}
	return !strings.Contains(name, "/") || strings.HasPrefix(name, "loaders/")
}

// add gives an artifact its place. What firmware loads is below /loaders/ and
// on TFTP too.
func (a *artifacts) add(name string, file httpd.File) error {
	if served(name) {
		a.web["/image/"+name] = file
	}
	switch loader, _ := strings.CutPrefix(name, "loaders/"); loader {
	case firmware.LoaderBIOS, firmware.LoaderUEFI:
		data, err := os.ReadFile(file.Path)
		if err != nil {
			return fmt.Errorf("read loader: %w", err)
		}
		a.loaders[loader] = data
		a.web["/loaders/"+loader] = file
	}
	return nil
}

func (a *artifacts) complete(dir string) error {
	for _, path := range []string{"/image/kernel", "/image/initramfs", "/loaders/undionly.kpxe", "/loaders/snponly.efi"} {
		if _, ok := a.web[path]; !ok {
			return fmt.Errorf("read image: %s/manifest.json does not list %s: build it again", dir, strings.TrimPrefix(strings.TrimPrefix(path, "/"), "image/"))
		}
	}
	return nil
}
