package powercut

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"time"

	"slipway/configs/disklayout"
	"slipway/image/verity"
	"slipway/nodeinit/install"
)

// build is an image as slipway image build makes it, with random content.
type build struct {
	version string
	files   map[string][]byte
	image   *install.Image
}

// sizes of the parts that matter: not multiples of a cluster or a page.
const (
	rootBytes   = 300_001
	kernelBytes = 150_003
	smallBytes  = 5_007
)

func newBuild(dir, version string) (*build, error) {
	random := rand.NewChaCha8(sha256.Sum256([]byte(version)))
	content := func(n int) []byte {
		data := make([]byte, n)
		random.Read(data)
		return data
	}
	from, to := filepath.Join(dir, version), filepath.Join(dir, version+".img")
	if err := os.WriteFile(from, content(rootBytes), 0o600); err != nil {
		return nil, err
	}
	root, err := verity.Build(from, to, nil)
	if err != nil {
		return nil, err
	}
	rootImage, err := os.ReadFile(to)
	if err != nil {
		return nil, err
	}
	boot, core := content(sector), content(smallBytes)
	binary.LittleEndian.PutUint64(boot[coreHint:], uint64(disklayout.MiB/sector))
	binary.LittleEndian.PutUint64(core[restHint:], uint64(disklayout.MiB/sector+1))
	b := &build{version: version, files: map[string][]byte{
		"root.img":                    rootImage,
		"uki.efi":                     program(content(kernelBytes)),
		"kernel":                      program(content(kernelBytes)),
		"initramfs.disk":              content(kernelBytes),
		"arguments.disk":              fmt.Appendf(nil, "panic=10 slipway.root=%s slipway.root-size=%d\n", root.Hash, root.DataSize),
		"loaders/systemd-bootx64.efi": program(content(smallBytes)),
		"loaders/grub/boot.img":       boot,
		"loaders/grub/core.img":       core,
	}}
	return b, b.seal(root)
}

// program gives content the header of an x86-64 program.
func program(content []byte) []byte {
	copy(content, "MZ")
	content[60], content[61], content[62], content[63] = 128, 0, 0, 0
	copy(content[128:], "PE\x00\x00\x64\x86")
	return content
}

func (b *build) seal(root verity.Root) error {
	manifest := map[string]any{"version": b.version, "root": root}
	var list []install.Artifact
	for name, data := range b.files {
		sum := sha256.Sum256(data)
		list = append(list, install.Artifact{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	}
	manifest["artifacts"] = list
	data, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	b.image = &install.Image{}
	if err := json.Unmarshal(data, b.image); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	b.image.SHA256 = hex.EncodeToString(sum[:])
	return nil
}

// RoundTrip makes a build its own boot service.
func (b *build) RoundTrip(r *http.Request) (*http.Response, error) {
	name := path.Clean(r.URL.Path)[1:]
	data, ok := b.files[name]
	if !ok {
		return nil, fmt.Errorf("the boot service has no %s", name)
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(bytes.NewReader(data)), ContentLength: int64(len(data)), Request: r}, nil
}

func (b *build) source() install.Source {
	return install.Source{Base: "http://boot-service", Client: &http.Client{Transport: b}, Stall: time.Minute}
}
