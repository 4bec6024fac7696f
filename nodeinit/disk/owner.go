package disk

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
)

// Owner is whose installation a disk has.
type Owner struct {
	Machine string // its ID
	Cluster string // the cluster's name
}

// guid is the GUID of an owner's partition table: the disk says with it from
// the table's first write on whose it is, without a file system having to be
// whole. It is a UUID of version 8, made from a hash (RFC 9562, 5.8).
func (o Owner) guid() string {
	b := sha256.Sum256([]byte("slipway installation\n" + o.text()))
	return formatGUID([16]byte(b[:16]), 8)
}

// newGUID is a random one.
func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	return formatGUID(b, 4)
}

func formatGUID(b [16]byte, version byte) string {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}

// ownerFile is in the state partition, for the manifest of who finds the disk
// and is not its owner.
const ownerFile = "owner"

// text is the owner in its file.
func (o Owner) text() string { return "machine " + o.Machine + "\ncluster " + o.Cluster + "\n" }

// parseOwner reads the owner's file; what it cannot read stays empty.
func parseOwner(text string) Owner {
	var o Owner
	for line := range strings.Lines(text) {
		switch key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); key {
		case "machine":
			o.Machine = value
		case "cluster":
			o.Cluster = value
		}
	}
	return o
}

// OwnerOf is whose installation a disk has; the zero value if it has none, or
// one that another partition table or hand has changed since. Nothing is mounted.
func OwnerOf(d Disk) (Owner, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return Owner{}, fmt.Errorf("look whose %s is: %w", d.Path, err)
	}
	defer f.Close()
	t, err := readTable(f, d)
	if err != nil {
		return Owner{}, fmt.Errorf("look whose %s is: %w", d.Path, err)
	}
	if !t.hasSlipway() {
		return Owner{}, nil
	}
	if owner := t.readOwner(f, d); owner.guid() == t.GUID {
		return owner, nil
	}
	return Owner{}, nil
}
