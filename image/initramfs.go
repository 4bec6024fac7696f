package image

import (
	"io"

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
	return writeEarlyInitramfs(w, init, root.path(earlyRAM), p)
}

// writeEarlyInitramfs writes init and one of the early directories, which is the
// whole initramfs of an installed machine.
func writeEarlyInitramfs(w io.Writer, init, dir string, p Profile) error {
	early, err := earlyTree(init, dir)
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
