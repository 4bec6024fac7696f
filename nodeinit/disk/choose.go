package disk

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"slipway/configs/disklayout"
)

// Rule says which disk to install to. All that is set must fit; the zero value
// is any disk.
type Rule struct {
	Path   string // /dev/sda: a name that may be another disk's after a boot
	Serial string
	WWN    string // with or without 0x, naa., eui. or wwn- in front
	Model  string // a pattern with * and ?, in any case of letters
	Type   Type
	// MinSize and MaxSize are bytes, both included; 0: no limit.
	MinSize, MaxSize int64
}

// ErrNoDisk is of a rule that no disk fits.
var ErrNoDisk = errors.New("no disk to install to")

// Choose returns the smallest disk that the rule allows and an installation
// fits on: large disks are bought for data. Among equals it takes the lowest
// serial number, then WWN, then name, so that it chooses the same disk again
// when the kernel counts them in another order. Without a disk, the error says
// of each why not.
func Choose(rule Rule, disks []Disk) (Disk, error) {
	var fit []Disk
	var not []string
	for _, d := range disks {
		if why := misfits(rule, d); len(why) > 0 {
			not = append(not, fmt.Sprintf("%s %s", d, strings.Join(why, ", ")))
			continue
		}
		fit = append(fit, d)
	}
	if len(fit) > 0 {
		return slices.MinFunc(fit, compareDisks), nil
	}
	if len(disks) == 0 {
		return Disk{}, fmt.Errorf("%w (%s): the machine has no disk, or none that the image has a driver for", ErrNoDisk, rule)
	}
	return Disk{}, fmt.Errorf("%w (%s): %s", ErrNoDisk, rule, strings.Join(not, "; "))
}

func compareDisks(a, b Disk) int {
	return cmp.Or(
		cmp.Compare(a.Size, b.Size),
		cmp.Compare(a.Serial, b.Serial),
		cmp.Compare(a.WWN, b.WWN),
		compareNames(a.Name, b.Name),
	)
}

// misfits says why a disk cannot be chosen; nothing if it can.
func misfits(rule Rule, d Disk) []string {
	why := rule.misfits(d)
	if len(why) > 0 {
		return why // what else is wrong with a disk that nobody asked for helps nobody
	}
	if d.ReadOnly {
		why = append(why, "is read-only")
	}
	if len(d.Uses) > 0 {
		why = append(why, "is in use ("+strings.Join(d.Uses, ", ")+")")
	}
	if d.Removable && !rule.names() {
		why = append(why, "is removable or on USB, and is taken only when the rule names it by path, serial or wwn")
	}
	if d.Size < disklayout.SmallestDisk {
		why = append(why, "is too small: an installation wants "+size(disklayout.SmallestDisk))
	}
	return why
}

// names tells whether the rule means one disk rather than a kind.
func (r Rule) names() bool { return r.Path != "" || r.Serial != "" || r.WWN != "" }

func (r Rule) misfits(d Disk) []string {
	var why []string
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			why = append(why, fmt.Sprintf(format, args...))
		}
	}
	expect(r.Path == "" || r.Path == d.Path, "is not %s", r.Path)
	expect(r.Serial == "" || strings.EqualFold(r.Serial, d.Serial), "has %s", orNo("serial", d.Serial))
	expect(r.WWN == "" || bareWWN(r.WWN) == bareWWN(d.WWN), "has %s", orNo("wwn", d.WWN))
	expect(r.Model == "" || matches(r.Model, d.Model), "has %s", orNo("model", d.Model))
	expect(r.Type == "" || r.Type == d.Type, "is of type %s", d.Type)
	expect(r.MinSize == 0 || d.Size >= r.MinSize, "is smaller than %s", size(r.MinSize))
	expect(r.MaxSize == 0 || d.Size <= r.MaxSize, "is larger than %s", size(r.MaxSize))
	return why
}

func orNo(what, value string) string {
	if value == "" {
		return "no " + what
	}
	return what + " " + value
}

// String is the rule as a person wrote it.
func (r Rule) String() string {
	var parts []string
	for _, p := range []struct{ key, value string }{
		{"path", r.Path}, {"serial", r.Serial}, {"wwn", r.WWN}, {"model", r.Model}, {"type", string(r.Type)},
	} {
		if p.value != "" {
			parts = append(parts, p.key+": "+p.value)
		}
	}
	if r.MinSize > 0 {
		parts = append(parts, "minSize: "+size(r.MinSize))
	}
	if r.MaxSize > 0 {
		parts = append(parts, "maxSize: "+size(r.MaxSize))
	}
	if len(parts) == 0 {
		return "disk: any"
	}
	return strings.Join(parts, ", ")
}

// matches is a glob in which no character is a separator. A pattern that cannot
// be read matches nothing; the config's validation has refused it before.
func matches(pattern, text string) bool {
	plain := strings.NewReplacer("/", "\x00")
	ok, _ := path.Match(plain.Replace(strings.ToLower(pattern)), plain.Replace(strings.ToLower(text)))
	return ok
}

// bareWWN is a WWN without what says how it is written: the kernel has
// naa.5000c500a1b2c3d4, lsblk 0x5000c500a1b2c3d4, udev wwn-0x5000c500a1b2c3d4.
func bareWWN(name string) string {
	name = strings.ToLower(name)
	for _, prefix := range []string{"nvme-", "wwn-", "naa.", "eui.", "uuid.", "0x"} {
		name = strings.TrimPrefix(name, prefix)
	}
	return name
}
