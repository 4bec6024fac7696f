package debian

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Pin is one package of a lock: the only bytes that a build accepts under the
// package's name.
type Pin struct {
	Name    string
	Version string
	Arch    string
	Path    string // below the archive's root: pool/main/...; no host name
	Sum
}

func (p Pin) String() string { return p.Name + " " + p.Version }

// Lock is the set of pinned packages, sorted by name.
type Lock []Pin

const lockHeader = "# Debian packages pinned for the image. Written by `slipway image lock`; do not edit.\n" +
	"# name version architecture size sha256 path\n"

// Encode returns the lock as text: one package a line.
func (l Lock) Encode() []byte {
	b := bytes.NewBufferString(lockHeader)
	sorted := slices.SortedFunc(slices.Values(l), func(a, b Pin) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range sorted {
		fmt.Fprintln(b, p.Name, p.Version, p.Arch, p.Size, p.SHA256, p.Path)
	}
	return b.Bytes()
}

// Find returns the pin of a package. Its absence is an error that names the
// command that pins it.
func (l Lock) Find(name string) (Pin, error) {
	i := slices.IndexFunc(l, func(p Pin) bool { return p.Name == name })
	if i < 0 {
		return Pin{}, fmt.Errorf("package %s is not in the lock: %s", name, updateHint)
	}
	return l[i], nil
}

// ParseLock reads what Encode wrote.
func ParseLock(r io.Reader) (Lock, error) {
	var l Lock
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		p, err := parsePin(strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if slices.ContainsFunc(l, func(o Pin) bool { return o.Name == p.Name }) {
			return nil, fmt.Errorf("line %d: package %s is pinned twice", n, p.Name)
		}
		l = append(l, p)
	}
	return l, lines.Err()
}

func parsePin(words []string) (Pin, error) {
	if len(words) != 6 {
		return Pin{}, fmt.Errorf("%d words; want: name version architecture size sha256 path", len(words))
	}
	size, err := strconv.ParseInt(words[3], 10, 64)
	if err != nil || size < 0 {
		return Pin{}, fmt.Errorf("size %q is not a number of bytes", words[3])
	}
	if !isSHA256(words[4]) {
		return Pin{}, fmt.Errorf("%q is not a SHA-256 in lower-case hex", words[4])
	}
	if err := checkPath(words[5]); err != nil {
		return Pin{}, err
	}
	return Pin{Name: words[0], Version: words[1], Arch: words[2], Path: words[5], Sum: Sum{Size: size, SHA256: words[4]}}, nil
}

// checkPath refuses what is not a clean relative path: it becomes part of a URL.
func checkPath(p string) error {
	if p == "" || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsAny(p, ":?#") {
		return fmt.Errorf("%q is not a path below an archive", p)
	}
	return nil
}
