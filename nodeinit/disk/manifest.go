package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Manifest lists the disks that an operation will write, and what is lost by
// it. A person agrees to its hash; from then on it stands for exactly these
// disks as they are.
type Manifest struct {
	Disks []Target
}

// Target is a disk that will be written.
type Target struct {
	Path, Model, Serial, WWN string
	Size                     int64
	// Own: the disk has a finished or half-finished installation of this very
	// machine and cluster. It is not in Found.
	Own bool
	// Found is what lies on the disk and is not ours; empty: nothing is lost.
	Found []Signature
}

// Signature is a mark by which a file system, a partition table or another
// owner of a disk is known.
type Signature struct {
	// Partition is where it is: 0 on the disk as a whole.
	Partition int
	Name      string // the partition's name in its table
	Kind      string // as people call it: ext4, LVM, ZFS, mdraid, LUKS, Ceph, Slipway, …
	Label     string // for Slipway the name of the cluster, when it can be known
	UUID      string
}

// ErrNotAgreed is of a disk with foreign data whose loss nobody agreed to.
var ErrNotAgreed = errors.New("nobody agreed to lose what is on the disk")

// Foreign returns all that would be lost. Without it there is nothing to agree to.
func (m Manifest) Foreign() []Signature {
	var list []Signature
	for _, t := range m.Disks {
		list = append(list, t.Found...)
	}
	return list
}

// Text is the manifest in its one form, of which the hash is taken, and as it is
// shown to people. Whatever the disks tell is quoted, so that no label can pass
// for a line of its own. A disk that can be told by serial number or WWN is not
// named by its path, which may be another one after the next boot.
func (m Manifest) Text() string {
	var b strings.Builder
	b.WriteString("wipe manifest 1\n")
	for _, t := range m.Disks {
		b.WriteString(t.text())
	}
	return b.String()
}

func (t Target) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "disk %d bytes", t.Size)
	quoted(&b, "model", t.Model)
	quoted(&b, "serial", t.Serial)
	quoted(&b, "wwn", t.WWN)
	if t.Serial == "" && t.WWN == "" {
		quoted(&b, "path", t.Path)
	}
	b.WriteByte('\n')
	if t.Own {
		b.WriteString("  an installation of this machine and cluster\n")
	}
	for _, s := range t.Found {
		b.WriteString("  " + s.String() + "\n")
	}
	return b.String()
}

// String is a signature's line in the manifest.
func (s Signature) String() string {
	var b strings.Builder
	b.WriteString("whole disk")
	if s.Partition > 0 {
		b.Reset()
		fmt.Fprintf(&b, "partition %d", s.Partition)
		quoted(&b, "named", s.Name)
	}
	b.WriteString(": " + s.Kind)
	if s.Kind == kindSlipway {
		quoted(&b, "of cluster", s.Label)
	} else {
		quoted(&b, "label", s.Label)
	}
	quoted(&b, "uuid", s.UUID)
	return b.String()
}

func quoted(b *strings.Builder, key, value string) {
	if value != "" {
		fmt.Fprintf(b, " %s %q", key, value)
	}
}

// Hash is the SHA-256 of Text, in hexadecimal.
func (m Manifest) Hash() string {
	sum := sha256.Sum256([]byte(m.Text()))
	return hex.EncodeToString(sum[:])
}

// Agreed returns nil when the disks may be written: nothing foreign is on them,
// or hash is the manifest's. Any other hash is of disks as they were before, and
// agrees to nothing.
func Agreed(m Manifest, hash string) error {
	foreign := m.Foreign()
	switch {
	case len(foreign) == 0 || hash == m.Hash():
		return nil
	case hash == "":
		return fmt.Errorf("%w: %s", ErrNotAgreed, summary(foreign))
	default:
		return fmt.Errorf("%w: it is not what was agreed to (%.12s…): %s", ErrNotAgreed, hash, summary(foreign))
	}
}

// summary is short: the manifest has it all.
func summary(list []Signature) string {
	const most = 4
	var parts []string
	for i, s := range list {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		parts = append(parts, s.String())
	}
	return strings.Join(parts, "; ")
}
