// Package module loads kernel modules: by name, and by the alias with which a
// device, or the kernel itself, asks for a driver. Dependencies come along.
// PID 1 calls it at boot and for each device that appears later; the kernel
// calls it through the modprobe role of the same program.
//
// It reads the text indexes that every kernel's modules come with. Reading them
// is on the way of each boot, so it makes one pass and no copy.
package module

import (
	"path"
	"strings"
)

// Aliases finds the modules that an alias asks for (modules.alias(5)). It is
// an index by what each pattern says before its first wildcard, because there
// are some twenty thousand patterns and a machine asks hundreds of times.
type Aliases struct {
	last     map[string]int32 // last pattern with a prefix, by prefix
	patterns []pattern
}

type pattern struct {
	glob, module string
	before       int32 // the one before with the same prefix; -1: none
}

// ParseAliases reads a modules.alias file. Lines that are not aliases are
// skipped.
func ParseAliases(text string) *Aliases {
	lines := strings.Count(text, "\n")
	a := &Aliases{last: make(map[string]int32, lines), patterns: make([]pattern, 0, lines)}
	for line := range strings.Lines(text) {
		rest, isAlias := strings.CutPrefix(line, "alias ")
		glob, module, ok := strings.Cut(rest, " ")
		if !isAlias || !ok {
			continue
		}
		glob = normalize(glob)
		prefix := glob
		if i := strings.IndexAny(glob, "*?["); i >= 0 {
			prefix = glob[:i]
		}
		before, known := a.last[prefix]
		if !known {
			before = -1
		}
		a.last[prefix] = int32(len(a.patterns))
		a.patterns = append(a.patterns, pattern{glob, strings.TrimSuffix(module, "\n"), before})
	}
	return a
}

// Match returns the modules whose alias patterns match, each once.
func (a *Aliases) Match(alias string) (modules []string) {
	alias = normalize(alias)
	seen := make(map[string]bool)
	for n := range len(alias) + 1 {
		at, known := a.last[alias[:n]]
		for known && at >= 0 {
			p := a.patterns[at]
			if !seen[p.module] && matches(p.glob, alias) {
				seen[p.module] = true
				modules = append(modules, p.module)
			}
			at = p.before
		}
	}
	return modules
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
