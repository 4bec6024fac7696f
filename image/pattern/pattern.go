// Package pattern matches paths of packages and modules against what a recipe
// names.
package pattern

import (
	"fmt"
	"path"
	"strings"
)

// Filter chooses files by patterns. A pattern that ends in a slash takes all
// below that directory; any other is a path.Match pattern for the whole path.
type Filter struct {
	Include []string
	Exclude []string
}

// Check returns an error for the first pattern that cannot be used.
func Check(pattern string) error {
	if pattern == "" || path.IsAbs(pattern) {
		return fmt.Errorf("pattern %q: want a relative path, a directory with a slash at its end, or a pattern with * ? [...]", pattern)
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return nil
}

// Match reports whether a pattern takes a path.
func Match(pattern, name string) bool {
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(name, pattern)
	}
	ok, _ := path.Match(pattern, name)
	return ok
}

// Takes reports whether the filter takes a path. Exclusion wins.
func (f Filter) Takes(name string) bool {
	return matchAny(f.Include, name) && !matchAny(f.Exclude, name)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if Match(p, name) {
			return true
		}
	}
	return false
}
