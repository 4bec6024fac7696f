package module

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Set is a number of modules by name.
type Set map[string]Info

// NewSet indexes modules by name.
func NewSet(infos []Info) Set {
	s := Set{}
	for _, i := range infos {
		s[i.Name] = i
	}
	return s
}

// LoadOrder returns the names of a set so that each comes after what it
// depends on. It expects the set to be closed.
func (s Set) LoadOrder(names []string) []string {
	var order []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		info, ok := s[name]
		if !ok || seen[name] {
			return
		}
		seen[name] = true
		for _, d := range slices.Concat(info.Soft, info.Depends) {
			visit(d)
		}
		order = append(order, name)
	}
	for _, name := range names {
		visit(Name(name))
	}
	return order
}

// Dep returns the text of modules.dep: each module with all that must be loaded
// before it, the last to be loaded first.
func (s Set) Dep() []byte {
	var b bytes.Buffer
	hard := s.withoutSoft()
	for _, name := range s.names() {
		fmt.Fprintf(&b, "%s:", s[name].Path)
		order := hard.LoadOrder([]string{name}) // ends with name itself
		for i := len(order) - 2; i >= 0; i-- {
			fmt.Fprintf(&b, " %s", s[order[i]].Path)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func (s Set) withoutSoft() Set {
	hard := Set{}
	for name, i := range s {
		i.Soft = nil
		hard[name] = i
	}
	return hard
}

// Alias returns the text of modules.alias.
func (s Set) Alias() []byte {
	b := bytes.NewBufferString("# Aliases extracted from modules themselves.\n")
	for _, name := range s.names() {
		for _, a := range s[name].Aliases {
			fmt.Fprintf(b, "alias %s %s\n", a, name)
		}
	}
	return b.Bytes()
}

// SoftDep returns the text of modules.softdep, without what is not in the set.
func (s Set) SoftDep() []byte {
	b := bytes.NewBufferString("# Soft dependencies extracted from modules themselves.\n")
	for _, name := range s.names() {
		have := slices.DeleteFunc(slices.Clone(s[name].Soft), func(n string) bool { _, ok := s[n]; return !ok })
		if len(have) > 0 {
			fmt.Fprintf(b, "softdep %s pre: %s\n", name, strings.Join(have, " "))
		}
	}
	return b.Bytes()
}

func (s Set) names() []string { return slices.Sorted(maps.Keys(s)) }
