package machine

import (
	"fmt"
	"path"
	"regexp"

	"slipway/configs/document"
)

// The words that Disk is written as, where it is not a rule.
const (
	NoDisk  = "none" // run from RAM
	AnyDisk = "any"  // the smallest that is suitable
)

// The smallest disk that has room for boot files, two slots, state and data,
// and the smallest data partition: images of pods and etcd live on it.
const (
	SmallestDisk = 6 * GiB
	SmallestData = 4 * GiB
)

// Install says where the operating system lives.
type Install struct {
	// Disk is "none": the machine runs from RAM, its state in tmpfs; or "any":
	// the smallest suitable disk; or a rule.
	Disk Disk `yaml:"disk"`
	// DataSize is how much of the disk is /var; left out, all that is left.
	DataSize Size `yaml:"dataSize,omitempty"`
	// Wipe is the hash of the wipe manifest that a person agreed to, SHA-256 in hex.
	Wipe string `yaml:"wipe,omitempty"`
	// Image is what is installed; the boot service's own if it says nothing.
	Image Image `yaml:"image,omitempty"`
}

// Image names an image of the operating system.
type Image struct {
	Version string `yaml:"version,omitempty"`
	// SHA256 is that of the image's manifest.json, in hex.
	SHA256 string `yaml:"sha256,omitempty"`
}

// Disk says which disk is installed to: by a word or by a rule.
type Disk struct {
	Word string    // none or any; empty with a rule
	Rule *DiskRule // which disks may be taken; the smallest of them is
}

// DiskRule describes a disk. All that is said must be true of it.
type DiskRule struct {
	// Path is a device, /dev/sda: another disk may have that name after a boot.
	Path   string   `yaml:"path,omitempty"`
	Serial string   `yaml:"serial,omitempty"`
	WWN    string   `yaml:"wwn,omitempty"`
	Model  string   `yaml:"model,omitempty"` // a pattern with * and ?: "Samsung SSD 9*"
	Type   DiskType `yaml:"type,omitempty"`
	// MinSize and MaxSize are the bounds, both inclusive.
	MinSize Size `yaml:"minSize,omitempty"`
	MaxSize Size `yaml:"maxSize,omitempty"`
}

// DiskType is how a disk works.
type DiskType string

// The types of disks.
const (
	NVMe DiskType = "nvme"
	SSD  DiskType = "ssd" // not rotating, and not NVMe
	HDD  DiskType = "hdd" // rotating
	// VirtualDisk is what a hypervisor emulates, whatever is below it.
	VirtualDisk DiskType = "virtual"
)

// OnDisk says whether the operating system is to be installed at all.
func (i Install) OnDisk() bool { return i.Disk.Rule != nil || i.Disk.Word == AnyDisk }

// Words are those that a disk is written as.
func (*Disk) Words() []string { return []string{NoDisk, AnyDisk} }

// Choose sets the word.
func (d *Disk) Choose(word string) { *d = Disk{Word: word} }

// Mapping makes room for a rule.
func (d *Disk) Mapping() any {
	*d = Disk{Rule: &DiskRule{}}
	return d.Rule
}

// MarshalYAML writes the word, or the rule.
func (d Disk) MarshalYAML() (any, error) {
	if d.Rule != nil {
		return d.Rule, nil
	}
	if d.Word == "" { // of a document that is not complete yet
		return nil, nil
	}
	return d.Word, nil
}

// String is the choice in words, for a plan.
func (d Disk) String() string {
	if d.Rule == nil {
		return map[string]string{NoDisk: "none", AnyDisk: "the smallest that is suitable"}[d.Word]
	}
	r, text := *d.Rule, "the smallest with"
	for _, said := range []struct{ name, value string }{
		{"path", r.Path}, {"serial", r.Serial}, {"wwn", r.WWN}, {"model", r.Model}, {"type", string(r.Type)},
		{"at least", sizeOrNothing(r.MinSize)}, {"at most", sizeOrNothing(r.MaxSize)},
	} {
		if said.value != "" {
			text += " " + said.name + " " + said.value
		}
	}
	return text
}

func sizeOrNothing(s Size) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

var hexSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (i Install) check(ps *document.Problems, path string) {
	CheckDisk(ps, path, i.Disk, i.DataSize)
	if i.Wipe != "" && !hexSHA256.MatchString(i.Wipe) {
		ps.Add(path+".wipe", fmt.Sprintf("%q is not the hash of a wipe manifest", i.Wipe), "64 hex digits; slipway machines show prints them")
	}
	if s := i.Image.SHA256; s != "" && !hexSHA256.MatchString(s) {
		ps.Add(path+".image.sha256", fmt.Sprintf("%q is not a SHA-256", s), "64 hex digits")
	}
	if !i.OnDisk() && (i.Wipe != "" || i.Image != (Image{})) {
		ps.Add(path, "a wipe or an image is given, though the disk is none", "disk: any, or a rule")
	}
}

// CheckDisk checks a choice of a disk and what is to be /var on it.
func CheckDisk(ps *document.Problems, path string, d Disk, data Size) {
	switch on := (Install{Disk: d}).OnDisk(); {
	case !on && d.Word != NoDisk:
		ps.Add(path+".disk", fmt.Sprintf("%q is not known", d.Word), "none, any, or a mapping")
	case !on && data != 0:
		ps.Add(path+".dataSize", "given, though the disk is none", "leave it out, or disk: any")
	case data != 0 && data < SmallestData:
		ps.Add(path+".dataSize", fmt.Sprintf("%s has no room for a node's images and logs", data), fmt.Sprintf("%s or more", SmallestData))
	}
	if d.Rule != nil {
		d.Rule.check(ps, path+".disk")
	}
}

func (r DiskRule) check(ps *document.Problems, at string) {
	if r == (DiskRule{}) {
		ps.Add(at, "the rule says nothing", "any, or at least one of path, serial, wwn, model, type, minSize, maxSize")
	}
	if r.Path != "" && !devicePath.MatchString(r.Path) {
		ps.Add(at+".path", fmt.Sprintf("%q is not a device", r.Path), "a path below /dev, such as /dev/sda")
	}
	if _, err := path.Match(r.Model, ""); err != nil {
		ps.Add(at+".model", fmt.Sprintf("%q is not a pattern", r.Model), "text with * and ? in it")
	}
	switch r.Type {
	case "", NVMe, SSD, HDD, VirtualDisk:
	default:
		ps.Add(at+".type", fmt.Sprintf("%q is not a type of disks", r.Type), "nvme, ssd, hdd, virtual")
	}
	switch {
	case r.MaxSize == 0:
	case r.MaxSize < SmallestDisk:
		ps.Add(at+".maxSize", fmt.Sprintf("%s is too small to install to", r.MaxSize), fmt.Sprintf("%s or more", SmallestDisk))
	case r.MaxSize < r.MinSize:
		ps.Add(at+".maxSize", fmt.Sprintf("%s is less than minSize %s", r.MaxSize, r.MinSize), "minSize or more")
	}
}

var devicePath = regexp.MustCompile(`^/dev/[a-z][a-z0-9]*$`)
