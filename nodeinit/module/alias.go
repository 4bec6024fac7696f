// Package module loads kernel modules: by name, and by the alias with which a
// device, or the kernel itself, asks for a driver. Dependencies come along.
// PID 1 calls it at boot and for each device that appears later; the kernel
// calls it through the modprobe role of the same program.
//
// It reads the text indexes that every kernel's modules come with.
package module

import (
	"path"
	"slices"
	"strings"
)

// Aliases is a modules.alias file (modules.alias(5)): some twenty thousand
// lines "alias PATTERN MODULE".
type Aliases string

// Match returns the modules whose patterns match any of the aliases, each
// once. It goes through the text once, without keeping anything: that is on the
// way of each boot, and an index of all would be asked for a few dozen.
func (a Aliases) Match(aliases ...string) (modules []string) {
	byPrefix := make(map[string][]string)
	for _, alias := range aliases {
		alias = normalize(alias)
		for n := range len(alias) + 1 {
			byPrefix[alias[:n]] = append(byPrefix[alias[:n]], alias)
		}
	}
	for line := range strings.Lines(string(a)) {
		rest, isAlias := strings.CutPrefix(line, "alias ")
		glob, module, ok := strings.Cut(rest, " ")
		if !isAlias || !ok {
			continue // a comment
		}
		glob = normalize(glob)
		matches := func(alias string) bool { return matches(glob, alias) }
		if slices.ContainsFunc(byPrefix[literal(glob)], matches) {
			modules = append(modules, strings.TrimSuffix(module, "\n"))
		}
	}
	slices.Sort(modules)
	return slices.Compact(modules)
}

// literal is what a pattern says before its first wildcard.
func literal(glob string) string {
	if i := strings.IndexAny(glob, "*?["); i >= 0 {
		return glob[:i]
	}
	return glob
}

// matches is fnmatch(3) without flags. path.Match differs in that its * stops
// at a slash, so slashes are taken out.
func matches(glob, alias string) bool {
	ok, err := path.Match(strings.ReplaceAll(glob, "/", "\x01"), strings.ReplaceAll(alias, "/", "\x01"))
	return ok && err == nil
}

// normalize makes dashes underscores, as module tools do with names and
// aliases, except within brackets, where a dash means a range.
func normalize(s string) string {
	if !strings.Contains(s, "-") {
		return s
	}
	b := []byte(s)
	inside := false
	for i, c := range b {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == '-' && !inside:
			b[i] = '_'
		}
	}
	return string(b)
}
