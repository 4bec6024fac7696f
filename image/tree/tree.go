// Package tree is a file system being put together in memory, and its two
// written forms: a tar stream and a cpio archive. Both are reproducible: entries
// are sorted, owned by root and carry one fixed time.
//
// It never touches the computer's own files, so building an image needs neither
// root nor chroot.
package tree

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Entry is one file, directory or symbolic link. Exactly one of Data, Source
// and Link counts for what is not a directory.
type Entry struct {
	Mode   fs.FileMode // type and permission bits
	Data   []byte      // content of a small regular file
	Source string      // file of this computer that holds the content of a large one
	Link   string      // target of a symbolic link
}

// Open returns the content of a regular file and its size.
func (e Entry) Open() (io.ReadCloser, int64, error) {
	if e.Source == "" {
		return io.NopCloser(bytes.NewReader(e.Data)), int64(len(e.Data)), nil
	}
	f, err := os.Open(e.Source)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// Tree maps clean relative paths to entries. Parents appear by themselves, as
// directories of mode 0755.
type Tree struct {
	entries map[string]Entry
	merged  []string // top-level directories that are links into usr
}

// New returns an empty tree. Paths that begin with one of the merged names
// (bin, lib...) are put below usr, and the tree has the links /bin -> usr/bin
// and so on, as Debian's installed systems do.
func New(merged ...string) *Tree {
	t := &Tree{entries: map[string]Entry{}, merged: merged}
	for _, name := range merged {
		t.entries["usr/"+name] = Entry{Mode: fs.ModeDir | 0o755}
		t.entries[name] = Entry{Mode: fs.ModeSymlink | 0o777, Link: "usr/" + name}
	}
	if len(merged) > 0 {
		t.entries["usr"] = Entry{Mode: fs.ModeDir | 0o755}
	}
	return t
}

// Clean returns the tree's own form of a path: relative, below usr when merged.
func (t *Tree) Clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if first, rest, ok := strings.Cut(name, "/"); ok && rest != "" && slices.Contains(t.merged, first) {
		return "usr/" + name
	}
	return name
}

// Add puts an entry at a path. Directories may be added twice; anything else
// at a used path is an error.
func (t *Tree) Add(name string, e Entry) error {
	name = t.Clean(name)
	if name == "" {
		return nil
	}
	if slices.Contains(t.merged, name) && e.Mode.IsDir() {
		return nil
	}
	if old, ok := t.entries[name]; ok && (!old.Mode.IsDir() || !e.Mode.IsDir()) {
		return fmt.Errorf("add /%s: the path is already used", name)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		old, ok := t.entries[dir]
		if ok && !old.Mode.IsDir() {
			return fmt.Errorf("add /%s: /%s is not a directory", name, dir)
		}
		if !ok {
			t.entries[dir] = Entry{Mode: fs.ModeDir | 0o755}
		}
	}
	t.entries[name] = e
	return nil
}

// AddFile adds a regular file with the given content.
func (t *Tree) AddFile(name string, perm fs.FileMode, data []byte) error {
	return t.Add(name, Entry{Mode: perm.Perm(), Data: data})
}

// AddLink adds a symbolic link.
func (t *Tree) AddLink(name, target string) error {
	return t.Add(name, Entry{Mode: fs.ModeSymlink | 0o777, Link: target})
}

// AddDir adds an empty directory.
func (t *Tree) AddDir(name string, perm fs.FileMode) error {
	return t.Add(name, Entry{Mode: fs.ModeDir | perm&(fs.ModePerm|fs.ModeSticky)})
}

// Get returns the entry at a path, without following links.
func (t *Tree) Get(name string) (Entry, bool) {
	e, ok := t.entries[t.Clean(name)]
	return e, ok
}

// Names returns every path in the order in which the tree is written: a
// directory comes before what it holds.
func (t *Tree) Names() []string { return slices.Sorted(maps.Keys(t.entries)) }
