package module

import (
	"path"
	"strings"
)

// dependencies is modules.dep (modules.dep(5)): for each module's name, its
// file, then the files it needs, each before those that it needs itself.
type dependencies map[string]string

// parseDependencies reads lines "kernel/net/a.ko.xz: kernel/lib/b.ko.xz …".
func parseDependencies(text string) dependencies {
	d := make(dependencies, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		if file, _, ok := strings.Cut(line, ":"); ok {
			d[nameOf(file)] = line
		}
	}
	return d
}

// files returns what to load for a module, in the order of loading; the
// module's own file is last. nil: there is no such module.
func (d dependencies) files(module string) (files []string) {
	own, needs, ok := strings.Cut(d[normalize(module)], ":")
	if !ok {
		return nil
	}
	for file := range strings.FieldsSeq(needs) {
		files = append([]string{file}, files...)
	}
	return append(files, own)
}

// nameOf is the name of the module in a file: kernel/net/br-x.ko.xz is br_x.
func nameOf(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return normalize(name)
}
