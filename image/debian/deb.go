package debian

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Walk calls visit for every entry of a package's file system, in the order of
// the archive. Names are cleaned and relative: usr/sbin/nft. The reader is valid
// during the call.
func Walk(debPath string, visit func(h *tar.Header, r io.Reader) error) error {
	f, err := os.Open(debPath)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := walk(bufio.NewReaderSize(f, 1<<20), visit); err != nil {
		return fmt.Errorf("unpack %s: %w", debPath, err)
	}
	return nil
}

func walk(r io.Reader, visit func(h *tar.Header, r io.Reader) error) error {
	data, err := dataMember(r)
	if err != nil {
		return err
	}
	files := tar.NewReader(data)
	for {
		h, err := files.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if name == "." {
			continue
		}
		if path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") {
			return fmt.Errorf("entry %q leaves the package", h.Name)
		}
		h.Name = name
		if err := visit(h, files); err != nil {
			return err
		}
	}
}

// dataMember finds data.tar.* in a package (deb(5)) and returns it unpacked.
func dataMember(r io.Reader) (io.Reader, error) {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, errors.New("it is not a Debian package (no ar archive)")
	}
	for {
		name, size, err := arHeader(r)
		if err != nil {
			return nil, fmt.Errorf("find data.tar: %w", err)
		}
		member := io.LimitReader(r, size)
		if compression, ok := strings.CutPrefix(name, "data.tar"); ok {
			return decompress(compression, member)
		}
		if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil {
			return nil, fmt.Errorf("skip member %q: %w", name, err)
		}
	}
}

// arHeader reads one 60-byte member header of an ar archive: name 16, time 12,
// owner 6, group 6, mode 8, size 10, end mark 2. deb(5) needs no more of ar(5).
func arHeader(r io.Reader) (name string, size int64, err error) {
	var h [60]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return "", 0, err
	}
	if string(h[58:]) != "`\n" {
		return "", 0, errors.New("bad ar member header")
	}
	size, err = strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
	if err != nil || size < 0 {
		return "", 0, fmt.Errorf("bad ar member size %q", h[48:58])
	}
	return strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/"), size, nil
}

func decompress(suffix string, r io.Reader) (io.Reader, error) {
	switch suffix {
	case "":
		return r, nil
	case ".xz":
		return xz.NewReader(r)
	case ".zst":
		d, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case ".gz":
		return gzip.NewReader(r)
	}
	return nil, fmt.Errorf("data.tar%s: unknown compression; known are .xz, .zst, .gz", suffix)
}
