package debian

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Source is one archive and suite that packages may come from.
type Source struct {
	URI        string // without a trailing slash: http://host/debian
	Suite      string // code name: bookworm-security
	Components []string
}

// HostSources reads the sources that apt uses on this computer, from
// sources.list and sources.list.d below dir (normally /etc/apt). Only plain
// http and https archives are returned: cdrom, file and the like are left out.
func HostSources(dir string) ([]Source, error) {
	files, err := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	if err != nil {
		return nil, err
	}
	var all []Source
	for _, name := range append([]string{filepath.Join(dir, "sources.list")}, files...) {
		found, err := readSources(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read apt source %s: %w", name, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

func readSources(name string) ([]Source, error) {
	parse := ParseDeb822
	switch filepath.Ext(name) {
	case ".list":
		parse = ParseOneLine
	case ".sources":
	default:
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

// ParseDeb822 reads the *.sources format of sources.list(5).
func ParseDeb822(r io.Reader) ([]Source, error) {
	var all []Source
	for p, err := range Paragraphs(r) {
		if err != nil {
			return nil, err
		}
		if p["enabled"] == "no" || !slices.Contains(strings.Fields(p["types"]), "deb") {
			continue
		}
		for _, uri := range strings.Fields(p["uris"]) {
			for _, suite := range strings.Fields(p["suites"]) {
				all = appendHTTP(all, uri, suite, strings.Fields(p["components"]))
			}
		}
	}
	return all, nil
}

// ParseOneLine reads the *.list format of sources.list(5).
func ParseOneLine(r io.Reader) ([]Source, error) {
	var all []Source
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if before, options, ok := strings.Cut(line, "["); ok {
			_, after, closed := strings.Cut(options, "]")
			if !closed {
				return nil, fmt.Errorf("%q: the options' bracket is not closed", lines.Text())
			}
			line = before + after
		}
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "deb" {
			continue
		}
		all = appendHTTP(all, words[1], words[2], words[3:])
	}
	return all, lines.Err()
}

// MirrorSources returns one source per mirror and suite, for recipes and
// commands that name archives themselves.
func MirrorSources(mirrors, suites []string) []Source {
	var all []Source
	for _, uri := range mirrors {
		for _, suite := range suites {
			all = appendHTTP(all, uri, suite, []string{"main"})
		}
	}
	return all
}

func appendHTTP(all []Source, uri, suite string, components []string) []Source {
	if !strings.HasPrefix(uri, "http://") && !strings.HasPrefix(uri, "https://") {
		return all
	}
	return append(all, Source{URI: strings.TrimRight(uri, "/"), Suite: suite, Components: components})
}
