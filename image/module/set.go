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

// Resolve returns the set with soft dependencies reduced to modules of the set.
// One that names an algorithm (crc32c) and not a module becomes a hard
// dependency on the plain implementation of it (crc32c_generic): that one loads
// on every processor, and modules such as libcrc32c fail without any.
func (s Set) Resolve() Set {
	plain := s.plainImplementations()
	out := Set{}
	for name, i := range s {
		var soft []string
		i.Depends = slices.Clone(i.Depends)
		for _, d := range i.Soft {
			if _, ok := s[d]; ok {
				soft = append(soft, d)
			} else if module, ok := plain[d]; ok && module != name && !slices.Contains(i.Depends, module) {
				i.Depends = append(i.Depends, module)
			}
		}
		i.Soft = soft
		out[name] = i
	}
	return out
}

// plainImplementations maps the aliases of *_generic modules to them.
func (s Set) plainImplementations() map[string]string {
	plain := map[string]string{}
	for _, name := range s.names() {
		if !strings.HasSuffix(name, "_generic") {
			continue
		}
		for _, a := range s[name].Aliases {
			plain[Name(a)] = name
		}
	}
	return plain
}

// LoadOrder returns the named modules with all they depend on, each after what
// it depends on.
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

// SoftDep returns the text of modules.softdep.
func (s Set) SoftDep() []byte {
	b := bytes.NewBufferString("# Soft dependencies extracted from modules themselves.\n")
	for _, name := range s.names() {
		if soft := s[name].Soft; len(soft) > 0 {
			fmt.Fprintf(b, "softdep %s pre: %s\n", name, strings.Join(soft, " "))
		}
	}
	return b.Bytes()
}

func (s Set) names() []string { return slices.Sorted(maps.Keys(s)) }
