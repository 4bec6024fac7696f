package early

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
	"slipway/nodeinit/disk"
)

// rootWanted is the root image that the kernel's command line names.
type rootWanted struct {
	hash []byte          // root hash of its dm-verity tree
	size int64           // bytes of data, and where the hash area begins
	slot disklayout.Slot // if the loader said which; of two that hold the image, that one
	boot string          // GUID, in lower case, of the partition that the loader came from; empty: it did not say
}

// The kernel arguments of a boot from a slot.
const (
	rootArgument = "slipway.root"
	sizeArgument = "slipway.root-size"
	slotArgument = "slipway.slot"
	bootArgument = "slipway.boot"
)

// wantedRoot reads the kernel's command line. nil: the root image is in the
// initramfs.
func wantedRoot(cmdline string) (*rootWanted, error) {
	values := map[string]string{}
	for _, word := range strings.Fields(cmdline) {
		if key, value, ok := strings.Cut(word, "="); ok {
			values[key] = value
		}
	}
	if values[rootArgument] == "" {
		return nil, nil
	}
	hash, err := hex.DecodeString(values[rootArgument])
	if err != nil || len(hash) != sha256.Size {
		return nil, fmt.Errorf("kernel argument %s=%s is not a SHA-256, 64 hex digits", rootArgument, values[rootArgument])
	}
	size, err := strconv.ParseInt(values[sizeArgument], 10, 64)
	if err != nil || size <= 0 || size%verityBlock != 0 {
		return nil, fmt.Errorf("kernel argument %s=%q is not a number of bytes, a multiple of %d", sizeArgument, values[sizeArgument], verityBlock)
	}
	return &rootWanted{hash, size, disklayout.Slot(values[slotArgument]), strings.ToLower(values[bootArgument])}, nil
}

// RootHash is the root hash, in hex, that a kernel command line names; empty if
// the root image is in the initramfs.
func RootHash(cmdline string) string {
	want, err := wantedRoot(cmdline)
	if err != nil || want == nil {
		return ""
	}
	return hex.EncodeToString(want.hash)
}

// slotOf is the slot whose partition has a label; none: empty.
func slotOf(label string) disklayout.Slot {
	for _, slot := range []disklayout.Slot{disklayout.SlotA, disklayout.SlotB} {
		if label == slot.Label() {
			return slot
		}
	}
	return ""
}

// slotWait is how a root image is looked for. Disks may take their time: a
// RAID controller starts its drives one after the other, a minute for a full shelf.
const (
	slotLook     = 100 * time.Millisecond
	slotDeadline = 3 * time.Minute
	slotTell     = 5 * time.Second
)

// awaitSlot returns the partition that holds the image. It waits for it until
// the deadline, and tells so.
func awaitSlot(log *slog.Logger, sys string, want *rootWanted) (partition, []byte, error) {
	began := time.Now()
	for told := began; ; time.Sleep(slotLook) {
		list, why := fromDisk(partitions(sys), want.boot, bootGUID)
		var p partition
		var salt []byte
		if why == nil {
			p, salt, why = findSlot(list, want)
		}
		if p.name != "" {
			return p, salt, nil
		}
		waited := time.Since(began)
		if waited >= slotDeadline {
			return p, nil, fmt.Errorf("no partition slipway-a or slipway-b holds the image %x: %w", want.hash[:8], why)
		}
		if time.Since(told) >= slotTell {
			told = time.Now()
			log.Warn("waiting for a partition slipway-a or slipway-b that holds this system's image",
				"image", hex.EncodeToString(want.hash[:8]), "so far", waited.Round(time.Second),
				"restarts in", (slotDeadline - waited).Round(time.Second), "why", why)
		}
	}
}

// errNoSlot says that no partition has the label of a slot.
var errNoSlot = errors.New("there is no such partition")

// fromDisk leaves of the partitions those of the disk that the loader came from, by
// the GUID of its partition: a machine may have another machine's disk in it, with
// the same image. Of a loader that did not say, all are left.
func fromDisk(list []partition, guid string, bootGUID func(disk string) (string, error)) ([]partition, error) {
	if guid == "" {
		return list, nil
	}
	var left []partition
	errs := []error{fmt.Errorf("the disk that the loader came from is not there: none has the boot partition %s", guid)}
	for _, p := range list {
		if p.label != disklayout.BootLabel {
			continue
		}
		switch have, err := bootGUID(p.disk); {
		case err != nil:
			errs = append(errs, err)
		case have == guid:
			left = append(left, onDisk(list, p.disk)...)
		}
	}
	if len(left) == 0 {
		return nil, errors.Join(errs...)
	}
	return left, nil
}

// bootGUID reads it from a disk's table: sysfs does not tell it.
func bootGUID(name string) (string, error) {
	d, err := diskNamed(name)
	if err != nil {
		return "", err
	}
	return disk.BootGUID(d)
}

// findSlot looks at all slots once. Of two of a disk that hold the image it takes
// the one that the loader named, else the first. The name is empty if none does,
// and if it is on two disks: which of them was booted is not known then.
func findSlot(list []partition, want *rootWanted) (found partition, salt []byte, why error) {
	why = errNoSlot
	var errs []error
	for _, p := range list {
		name := slotOf(p.label)
		if name == "" || found.disk == p.disk && name != want.slot {
			continue
		}
		s, err := inspect(p.device, want)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s on %s: %w", p.label, p.name, err))
			continue
		}
		if found.name != "" && found.disk != p.disk {
			return partition{}, nil, fmt.Errorf("%s and %s both hold it, and the loader does not say which disk it came from: take one of %s and %s out", found.name, p.name, found.disk, p.disk)
		}
		found, salt = p, s
	}
	if len(errs) > 0 {
		why = errors.Join(errs...)
	}
	return found, salt, why
}

func inspect(device string, want *rootWanted) ([]byte, error) {
	file, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return holds(file, want)
}

// verityBlock is the size of data and hash blocks.
const verityBlock = 4096

// superblock is how a dm-verity hash area begins (cryptsetup, "verity superblock").
type superblock struct {
	Signature     [8]byte
	Version, Type uint32
	UUID          [16]byte
	Algorithm     [32]byte
	DataBlockSize uint32
	HashBlockSize uint32
	DataBlocks    uint64
	SaltSize      uint16
	_             [6]byte
	Salt          [256]byte
	_             [168]byte
}

// holds checks that a slot holds the image, and returns the salt of its hash
// tree. The root hash is that of the tree's top block, which follows the
// superblock's; all below is checked by the kernel as it is read.
func holds(slot io.ReaderAt, want *rootWanted) ([]byte, error) {
	block := make([]byte, 2*verityBlock)
	if _, err := slot.ReadAt(block, want.size); err != nil {
		return nil, fmt.Errorf("read the hash area: %w", err)
	}
	var super superblock
	if err := binary.Read(bytes.NewReader(block), binary.LittleEndian, &super); err != nil {
		return nil, err
	}
	switch {
	case string(super.Signature[:]) != "verity\x00\x00":
		return nil, errors.New("it holds another image, or none")
	case super.Version != 1 || super.Type != 1 || unix.ByteSliceToString(super.Algorithm[:]) != "sha256" ||
		super.DataBlockSize != verityBlock || super.HashBlockSize != verityBlock || int(super.SaltSize) > len(super.Salt):
		return nil, errors.New("its hash area is of a form that this system does not know")
	case int64(super.DataBlocks) != want.size/verityBlock:
		return nil, errors.New("it holds another image")
	}
	salt := super.Salt[:super.SaltSize]
	sum := sha256.Sum256(append(bytes.Clone(salt), block[verityBlock:]...))
	if !bytes.Equal(sum[:], want.hash) {
		return nil, fmt.Errorf("its root hash is %x: another image, or damage", sum[:8])
	}
	return salt, nil
}

// Where systemd-boot says which file it started, and the GUID of the partition that
// it came from itself (systemd.io/BOOT_LOADER_INTERFACE).
const (
	loaderEntry     = "LoaderEntrySelected-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	loaderPartition = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
)

// loaderText is a variable of a loader's, in lower case: four bytes of
// attributes, then UTF-16. A variable that is not there is empty.
func loaderText(variable []byte) string {
	if len(variable) < 4 {
		return ""
	}
	var units []uint16
	for text := variable[4:]; len(text) >= 2; text = text[2:] {
		units = append(units, binary.LittleEndian.Uint16(text))
	}
	return strings.ToLower(strings.TrimSuffix(string(utf16.Decode(units)), "\x00"))
}

// entrySlot is the slot of a loader's entry: slipway-b+0-1.efi is of b.
func entrySlot(entry string) disklayout.Slot {
	label, _, _ := strings.Cut(entry, ".")
	label, _, _ = strings.Cut(label, "+") // the tries that are left
	return slotOf(label)
}
