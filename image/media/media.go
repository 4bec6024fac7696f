// Package media writes images that are copied to a disk, a stick or a CD and
// boot a machine without a network's help: a disk as if Slipway had installed
// itself on it, and an installer that runs from RAM.
//
// The bytes of both depend on the artifacts and the arguments alone.
package media

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot/fat"
)

// Artifacts returns an artifact of the image by its name in the manifest.
type Artifacts func(name string) ([]byte, error)

// section is a part of a file with the file's own name for positions 0 and up.
// Nothing is waited for: an image that is not whole is thrown away.
type section struct {
	*os.File
	start int64
}

func (s section) ReadAt(b []byte, at int64) (int, error)  { return s.File.ReadAt(b, s.start+at) }
func (s section) WriteAt(b []byte, at int64) (int, error) { return s.File.WriteAt(b, s.start+at) }
func (s section) Sync() error                             { return nil }

// makeFAT makes a FAT32 file system in a part of a file.
func makeFAT(f *os.File, start, size int64, label string) (*fat.Volume, error) {
	if _, err := fat32.Create(file.New(f, false), size, start, 512, label, true); err != nil {
		return nil, fmt.Errorf("make FAT: %w", err)
	}
	if err := forgetTime(section{f, start}); err != nil {
		return nil, fmt.Errorf("make FAT: %w", err)
	}
	return fat.Open(section{f, start})
}

// forgetTime removes from a new FAT32 file system when it was made: the times
// of the label, which is the first entry of the first cluster (Microsoft's FAT
// specification, 3.1 and 6.1).
func forgetTime(s section) error {
	head := make([]byte, 512)
	if _, err := s.ReadAt(head, 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	sectors := int64(le.Uint16(head[14:])) + int64(head[16])*int64(le.Uint32(head[36:]))
	label := make([]byte, 32)
	at := sectors * int64(le.Uint16(head[11:]))
	if _, err := s.ReadAt(label, at); err != nil {
		return err
	}
	const isLabel = 0x08
	if label[11]&isLabel == 0 {
		return errors.New("the file system does not begin with its label")
	}
	clear(label[13:])
	_, err := s.WriteAt(label, at)
	return err
}

// guid derives an identifier from a text: the same image has the same ones, and
// another image others (RFC 9562, version 8).
func guid(text string) string {
	b := sha256.Sum256([]byte("slipway media\n" + text))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}

// table is a partition table for the given partitions, with sectors of 512 bytes.
func table(seed string, list []disklayout.Partition) *gpt.Table {
	t := &gpt.Table{GUID: guid(seed), ProtectiveMBR: true, LogicalSectorSize: 512, PhysicalSectorSize: 512}
	for _, p := range list {
		t.Partitions = append(t.Partitions, &gpt.Partition{Index: p.Number, Name: p.Label, Type: gpt.Type(p.Type), GUID: guid(seed + p.Label),
			Start: uint64(p.Start / 512), Size: uint64(p.Size)})
	}
	return t
}
