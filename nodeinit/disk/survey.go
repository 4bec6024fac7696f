package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"slipway/configs/disklayout"
)

// Tools are the programs and the view of the machine that the package uses.
// The zero value takes the programs from PATH and the machine's own root.
type Tools struct {
	Wipefs string // of util-linux
	Mke2fs string // of e2fsprogs
	Root   fs.FS  // with sys and proc
}

func (t Tools) root() fs.FS {
	if t.Root == nil {
		return os.DirFS("/")
	}
	return t.Root
}

func (t Tools) run(ctx context.Context, program, standard string, args ...string) ([]byte, error) {
	if program == "" {
		program = standard
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", standard, err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	return out, nil
}

// Survey looks at disks that are to be written and changes nothing. Its answer
// is what a person agrees to. A disk that cannot be read is an error: nobody
// could know what would be lost.
func (t Tools) Survey(ctx context.Context, owner Owner, disks ...Disk) (Manifest, error) {
	var m Manifest
	for _, d := range disks {
		target, err := t.surveyOne(ctx, owner, d)
		if err != nil {
			return Manifest{}, fmt.Errorf("look at %s: %w", d.Path, err)
		}
		m.Disks = append(m.Disks, target)
	}
	return m, nil
}

func (t Tools) surveyOne(ctx context.Context, owner Owner, d Disk) (Target, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return Target{}, err
	}
	defer f.Close()
	found, err := t.look(ctx, f, d)
	if err != nil {
		return Target{}, err
	}
	return found.target(owner, d), nil
}

// finding is all that was found on a disk.
type finding struct {
	marks   []mark
	table   *table // nil: none that can be read
	claim   string // the GUID of who began an installation, see claim.go
	cluster string // of the installation that the table tells of, when it can be known
}

// A mark is a place that programs know an owner by.
type mark struct {
	device         string // the device's name, without /dev
	kind           string // as wipefs calls it
	label, uuid    string
	offset, length int64 // from the device's begin
}

func (t Tools) look(ctx context.Context, r storage, d Disk) (finding, error) {
	var f finding
	var err error
	if f.claim, err = readClaim(r, d); err != nil {
		return f, err
	}
	if f.table, err = readTable(r, d); err != nil {
		return f, err
	}
	if f.table.hasSlipway() {
		f.cluster = f.table.readOwner(r, d).Cluster
	}
	f.marks, err = t.marks(ctx, d)
	return f, err
}

// marks asks wipefs for everything it knows on the disk and on each partition.
func (t Tools) marks(ctx context.Context, d Disk) ([]mark, error) {
	args := []string{"--no-act", "--json", "--output", "DEVICE,OFFSET,LENGTH,TYPE,UUID,LABEL", d.Path}
	for _, p := range d.Partitions {
		args = append(args, p.Path)
	}
	out, err := t.run(ctx, t.Wipefs, "wipefs", args...)
	if err != nil {
		return nil, err
	}
	return parseMarks(out)
}

// parseMarks reads what wipefs prints: nothing at all for a blank disk.
func parseMarks(out []byte) ([]mark, error) {
	if len(bytes.TrimSpace(out)) == 0 {
		return nil, nil
	}
	var doc struct {
		Signatures []struct {
			Device, Offset, Type, UUID, Label string
			Length                            int64
		}
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return nil, fmt.Errorf("read what wipefs says: %w", err)
	}
	var list []mark
	for _, s := range doc.Signatures {
		offset, err := strconv.ParseInt(s.Offset, 0, 64)
		if err != nil || s.Length <= 0 {
			return nil, fmt.Errorf("read what wipefs says: a %s at %q of %d bytes", s.Type, s.Offset, s.Length)
		}
		list = append(list, mark{device: s.Device, kind: s.Type, label: s.Label, uuid: s.UUID, offset: offset, length: s.Length})
	}
	return list, nil
}

// own tells whether the disk has an installation of this owner: a claim, or a
// partition table with the owner's GUID and nothing over it. Who made a file
// system of the whole disk since then may have left the second copy of our
// table at its end.
func (f finding) own(owner Owner, d Disk) bool {
	if f.claim == owner.guid() {
		return true
	}
	if f.table == nil || f.table.GUID != owner.guid() {
		return false
	}
	return !slices.ContainsFunc(f.marks, func(m mark) bool { return m.device == base(d) && !isTable(m.kind) })
}

func isTable(kind string) bool { return kind == "gpt" || kind == "PMBR" }

// target is the disk's entry in the manifest.
func (f finding) target(owner Owner, d Disk) Target {
	t := Target{Path: d.Path, Model: d.Model, Serial: d.Serial, WWN: d.WWN, Size: d.Size, Own: f.own(owner, d)}
	if !t.Own {
		t.Found = f.signatures(d)
	}
	return t
}

// signatures are the marks without what is said twice: ZFS and btrfs have many
// copies of one, a GPT is also a protective MBR.
func (f finding) signatures(d Disk) []Signature {
	var list []Signature
	if f.table.hasSlipway() {
		list = append(list, Signature{Kind: kindSlipway, Label: f.cluster, UUID: f.table.GUID})
	}
	hasGPT := slices.ContainsFunc(f.marks, func(m mark) bool { return m.kind == "gpt" })
	for _, m := range f.marks {
		s := Signature{Kind: kindName(m.kind), Label: m.label, UUID: m.uuid}
		for _, p := range d.Partitions {
			if m.device == p.base() {
				s.Partition, s.Name = p.Number, f.table.nameOf(p.Number)
			}
		}
		if m.kind == "PMBR" && hasGPT || slices.Contains(list, s) {
			continue
		}
		list = append(list, s)
	}
	return list
}

const kindSlipway = "Slipway"

// kindName is what people call what wipefs found; most have that name already.
func kindName(kind string) string {
	names := map[string]string{
		"gpt": "GPT", "PMBR": "protective MBR", "dos": "MBR",
		"LVM2_member": "LVM", "LVM1_member": "LVM", "linux_raid_member": "mdraid", "crypto_LUKS": "LUKS",
		"zfs_member": "ZFS", "ceph_bluestore": "Ceph", "vfat": "FAT", "ntfs": "NTFS",
	}
	if name, ok := names[kind]; ok {
		return name
	}
	return kind
}

// base is the disk's name as wipefs says it.
func base(d Disk) string { return d.Path[strings.LastIndexByte(d.Path, '/')+1:] }

// hasSlipway tells a table that some Slipway has written.
func (t *table) hasSlipway() bool {
	if t == nil {
		return false
	}
	_, boot := t.find(disklayout.BootLabel)
	_, slot := t.find(disklayout.SlotALabel)
	return boot && slot
}
