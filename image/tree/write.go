package tree

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/cavaliergopher/cpio"
)

// epoch is the time of every entry. Not zero: some programs take a file of 1970
// with a zero time for one without a time.
func epoch() time.Time { return time.Unix(1, 0).UTC() }

// WriteTar writes the tree as a tar stream.
func (t *Tree) WriteTar(w io.Writer) error {
	out := tar.NewWriter(w)
	for _, name := range t.Names() {
		if err := writeTarEntry(out, name, t.entries[name]); err != nil {
			return fmt.Errorf("write /%s to tar: %w", name, err)
		}
	}
	return out.Close()
}

func writeTarEntry(out *tar.Writer, name string, e Entry) error {
	h := &tar.Header{Name: name, Mode: unixMode(e.Mode), ModTime: epoch(), Format: tar.FormatPAX}
	switch e.Mode.Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return out.WriteHeader(h)
	case fs.ModeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
		return out.WriteHeader(h)
	}
	content, size, err := e.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	h.Typeflag, h.Size = tar.TypeReg, size
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return err
}

// WriteCPIO writes the tree in the "newc" format, which the kernel unpacks as
// an initramfs. The result is a multiple of 4 bytes long.
func (t *Tree) WriteCPIO(w io.Writer) error {
	out := cpio.NewWriter(w)
	for _, name := range t.Names() {
		if err := writeCPIOEntry(out, name, t.entries[name]); err != nil {
			return fmt.Errorf("write /%s to cpio: %w", name, err)
		}
	}
	return out.Close()
}

func writeCPIOEntry(out *cpio.Writer, name string, e Entry) error {
	h := &cpio.Header{Name: name, Mode: cpio.FileMode(unixMode(e.Mode)), ModTime: epoch(), Links: 1}
	switch e.Mode.Type() {
	case fs.ModeDir:
		h.Mode |= cpio.TypeDir
		h.Links = 2
		return out.WriteHeader(h)
	case fs.ModeSymlink:
		h.Mode |= cpio.TypeSymlink
		h.Size = int64(len(e.Link)) // the target is the entry's content
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(out, e.Link)
		return err
	}
	content, size, err := e.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	h.Mode |= cpio.TypeReg
	h.Size = size
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return err
}

// unixMode returns permission bits as the kernel numbers them.
func unixMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	if m&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	return mode
}
