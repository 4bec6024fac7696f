// Package verity puts a dm-verity hash tree behind a root image, so that the
// kernel checks each block of it when it is read
// (Documentation/admin-guide/device-mapper/verity.rst).
package verity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/go-dmverity/pkg/verity"
)

// BlockSize is that of data and hashes alike: a page of memory.
const BlockSize = 4096

// Root is what a kernel must be told to trust an image.
type Root struct {
	Hash     string `json:"hash"`     // root hash, SHA-256 in hex
	DataSize int64  `json:"dataSize"` // bytes of data; there the hash area begins with its superblock
}

// Build writes the file to: what from holds, filled up with zeros to whole
// blocks, and the hash tree. The hash is of the salt too, at most 256 bytes: what
// belongs to the image and is not in it. The file to is replaced.
func Build(from, to string, salt []byte) (Root, error) {
	size, err := padded(from, to)
	if err != nil {
		return Root{}, fmt.Errorf("write %s: %w", to, err)
	}
	params := verity.DefaultParams()
	params.DataBlockSize, params.HashBlockSize = BlockSize, BlockSize
	params.DataBlocks, params.HashAreaOffset = uint64(size/BlockSize), uint64(size)
	params.Salt, params.SaltSize = salt, uint16(len(salt))
	params.UUID = [16]byte{'s', 'l', 'i', 'p', 'w', 'a', 'y'} // of the superblock; nobody reads it
	hash, err := verity.Create(&params, to, to)
	if err != nil {
		return Root{}, fmt.Errorf("write the hash tree of %s: %w", to, err)
	}
	return Root{Hash: hex.EncodeToString(hash), DataSize: size}, nil
}

// padded copies a file and returns the size of the copy, a multiple of the
// block size.
func padded(from, to string) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	size, err := io.Copy(out, in)
	if err == nil && size == 0 {
		err = errors.New("the root image is empty")
	}
	size = (size + BlockSize - 1) / BlockSize * BlockSize
	return size, errors.Join(err, out.Truncate(size), out.Close())
}
