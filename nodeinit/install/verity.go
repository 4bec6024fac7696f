package install

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// verityBlock is the size of data and hash blocks.
const verityBlock = 4096

// VerifyRoot reads a slot's root image with its dm-verity hash tree and checks
// all of it: the data has the root hash, and the tree is the one that the kernel
// will need for each block. size is where the hash area begins. What does not
// agree is ErrDamaged.
//
// The form is that of cryptsetup's superblock, version 1: SHA-256, blocks of
// 4096 bytes, the salt before the data, the top of the tree first.
func VerifyRoot(slot io.ReaderAt, size int64, rootHash string) error {
	want, err := hex.DecodeString(rootHash)
	if err != nil || size <= 0 || size%verityBlock != 0 {
		return fmt.Errorf("%w: a root hash %q over %d bytes cannot be", ErrDamaged, rootHash, size)
	}
	salt, err := readSalt(slot, size)
	if err != nil {
		return err
	}
	level, err := hashBlocks(io.NewSectionReader(slot, 0, size), salt)
	if err != nil {
		return err
	}
	var levels [][]byte // the lowest first
	for len(level) > sha256.Size {
		levels = append(levels, level)
		if level, err = hashBlocks(bytes.NewReader(level), salt); err != nil {
			return err
		}
	}
	if len(levels) == 0 { // a single block of data has no tree above it
		return fmt.Errorf("%w: the image is too small to be one", ErrDamaged)
	}
	if !bytes.Equal(level, want) {
		return fmt.Errorf("%w: the root hash is %x, not %s", ErrDamaged, level, rootHash)
	}
	return compareTree(slot, size+verityBlock, levels)
}

func readSalt(slot io.ReaderAt, size int64) ([]byte, error) {
	super := make([]byte, verityBlock)
	if _, err := slot.ReadAt(super, size); err != nil {
		return nil, fmt.Errorf("read the hash area: %w", err)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(super[at:]) }
	salted := int(binary.LittleEndian.Uint16(super[80:]))
	algorithm := string(bytes.TrimRight(super[32:64], "\x00"))
	blocks := int64(binary.LittleEndian.Uint64(super[72:]))
	if string(super[:8]) != "verity\x00\x00" || u32(8) != 1 || u32(12) != 1 || algorithm != "sha256" ||
		u32(64) != verityBlock || u32(68) != verityBlock || blocks != size/verityBlock || salted > 256 {
		return nil, fmt.Errorf("%w: there is no hash area of this image", ErrDamaged)
	}
	return super[88 : 88+salted], nil
}

// hashBlocks returns the hashes of all blocks, the last filled up with zeros.
func hashBlocks(from io.Reader, salt []byte) ([]byte, error) {
	var sums []byte
	h, block := sha256.New(), make([]byte, verityBlock)
	for {
		n, err := io.ReadFull(from, block)
		if err == io.EOF {
			return sums, nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("read it back: %w", err)
		}
		clear(block[n:])
		h.Reset()
		h.Write(salt)
		h.Write(block)
		sums = h.Sum(sums)
	}
}

// compareTree reads the tree as it is stored: the highest level first, each
// from the beginning of a block.
func compareTree(slot io.ReaderAt, at int64, levels [][]byte) error {
	for i := len(levels) - 1; i >= 0; i-- {
		want := make([]byte, (len(levels[i])+verityBlock-1)/verityBlock*verityBlock)
		copy(want, levels[i])
		stored := make([]byte, len(want))
		if _, err := slot.ReadAt(stored, at); err != nil {
			return fmt.Errorf("read the hash tree: %w", err)
		}
		if !bytes.Equal(stored, want) {
			return fmt.Errorf("%w: its hash tree does not belong to it", ErrDamaged)
		}
		at += int64(len(stored))
	}
	return nil
}
