package image

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"slipway/image/tree"
)

// writeInitramfs writes two archives in a row, which the kernel unpacks one
// after the other (Documentation/driver-api/early-userspace/buffer-format.rst):
// first the root image, already compressed and therefore stored as it is, then
// init and the boot modules, compressed. The stored archive comes first because
// it must start at a multiple of 4 bytes.
func writeInitramfs(w io.Writer, init string, root *rootImage, p Profile) error {
	stored := tree.New()
	if err := stored.Add("root.squashfs", tree.Entry{Mode: 0o444, Source: root.path("root.squashfs")}); err != nil {
		return err
	}
	if err := stored.WriteCPIO(w); err != nil {
		return err
	}
	early, err := earlyTree(init, root)
	if err != nil {
		return err
	}
	packed, err := p.compressor(w)
	if err != nil {
		return err
	}
	if err := early.WriteCPIO(packed); err != nil {
		return err
	}
	return packed.Close()
}

// compressor packs what the kernel itself unpacks: like the root image, with
// zstd or with xz. The kernel's xz knows no checksum but CRC-32.
func (p Profile) compressor(w io.Writer) (io.WriteCloser, error) {
	if p == Release {
		return xz.WriterConfig{CheckSum: xz.CRC32}.NewWriter(w)
	}
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
}

// earlyTree is what PID 1 needs before the root image is mounted.
func earlyTree(init string, root *rootImage) (*tree.Tree, error) {
	t := tree.New()
	if err := t.Add("init", tree.Entry{Mode: 0o755, Source: init}); err != nil {
		return nil, err
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "root"} {
		if err := t.AddDir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return t, addBootModules(t, root)
}

// addBootModules copies the boot modules of the cached root image.
func addBootModules(t *tree.Tree, root *rootImage) error {
	dir := root.path("modules")
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return t.Add("modules/"+d.Name(), tree.Entry{Mode: 0o644, Source: path})
	})
}

// writeBootModules writes modules and their load order for addBootModules.
func writeBootModules(dir string, boot []moduleFile) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var order bytes.Buffer
	for _, m := range boot {
		fmt.Fprintln(&order, m.name)
		if err := os.WriteFile(filepath.Join(dir, m.name), m.data, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "order"), order.Bytes(), 0o644)
}

// moduleFile is one boot module.
type moduleFile struct {
	name string // loop.ko
	data []byte
}
