// Package module loads kernel modules: by name, and by the alias with which a
// device, or the kernel itself, asks for a driver. Dependencies come along.
// PID 1 calls it at boot and for each device that appears later; the kernel
// calls it through the modprobe role of the same program.
package module

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// Aliases finds the modules that an alias asks for (modules.alias(5)). It is
// an index by what each pattern says before its first wildcard, because there
// are some twenty thousand patterns and a machine asks hundreds of times.
type Aliases struct {
	byPrefix map[string][]pattern
}

type pattern struct {
	glob   string // all of it; no wildcard: equal to its prefix
	module string
}

// ParseAliases reads a modules.alias file.
func ParseAliases(r io.Reader) (*Aliases, error) {
	a := &Aliases{byPrefix: make(map[string][]pattern)}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || fields[0] != "alias" {
			continue // a comment
		}
		glob := normalize(fields[1])
		prefix := glob
		if i := strings.IndexAny(glob, "*?["); i >= 0 {
			prefix = glob[:i]
		}
		a.byPrefix[prefix] = append(a.byPrefix[prefix], pattern{glob, fields[2]})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read aliases: %w", err)
	}
	return a, nil
}

// Match returns the modules whose alias patterns match, each once.
func (a *Aliases) Match(alias string) (modules []string) {
	alias = normalize(alias)
	seen := make(map[string]bool)
	for n := range len(alias) + 1 {
		for _, p := range a.byPrefix[alias[:n]] {
			if !seen[p.module] && matches(p.glob, alias) {
				seen[p.module] = true
				modules = append(modules, p.module)
			}
		}
	}
	return modules
}

// matches is fnmatch(3) without flags. path.Match differs in that its * stops
// at a slash; aliases have none that matters, so they are taken out.
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
