// Package module chooses kernel modules and writes the tables by which a node
// loads them: modules.dep and modules.alias.
//
// It does what depmod(8) does for these two files, from the .modinfo section
// that the kernel's build puts into each module. What a module depends on is
// complete there: modpost lists the owners of all symbols a module uses.
package module

import (
	"bytes"
	"debug/elf"
	"fmt"
	"path"
	"strings"
)

// Info is what a module says about itself.
type Info struct {
	Path    string   // below lib/modules/<release>: kernel/net/ipv4/ip_tunnel.ko
	Name    string   // as the kernel spells it: ip_tunnel
	Depends []string // names of modules that must be loaded before
	Soft    []string // names of modules that should be loaded before (softdep pre)
	Aliases []string // patterns of modalias strings that it serves
}

// Name returns the kernel's name of a module file or of a name written by hand:
// without directory and suffixes, with underscores.
func Name(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// ParseInfo reads the .modinfo section of an unpacked module.
func ParseInfo(file string, ko []byte) (Info, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return Info{}, fmt.Errorf("read module %s: %w", file, err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return Info{}, fmt.Errorf("read module %s: it has no .modinfo section", file)
	}
	data, err := section.Data()
	if err != nil {
		return Info{}, fmt.Errorf("read module %s: %w", file, err)
	}
	info := Info{Path: file, Name: Name(file)}
	for field := range bytes.SplitSeq(data, []byte{0}) {
		info.add(string(field))
	}
	return info, nil
}

func (i *Info) add(field string) {
	key, value, _ := strings.Cut(field, "=")
	switch key {
	case "depends":
		for name := range strings.SplitSeq(value, ",") {
			if name != "" {
				i.Depends = append(i.Depends, Name(name))
			}
		}
	case "alias":
		i.Aliases = append(i.Aliases, value)
	case "softdep":
		i.Soft = append(i.Soft, softBefore(value)...)
	}
}

// softBefore returns the "pre:" part of a softdep (modprobe.d(5)).
func softBefore(value string) []string {
	var names []string
	before := false
	for word := range strings.FieldsSeq(value) {
		switch {
		case strings.HasSuffix(word, ":"):
			before = word == "pre:"
		case before:
			names = append(names, Name(word))
		}
	}
	return names
}
