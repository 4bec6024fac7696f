// Package elflib checks that every program and library of a root image finds
// the shared libraries it was linked with, so that a missing Debian package
// fails the build and not the node.
package elflib

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"slipway/image/tree"
)

// Dirs is where Debian's loader looks for libraries without configuration.
func Dirs() []string { return []string{"usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64"} }

// Check looks at every regular file below the given directories and returns
// one error for each library or loader that the tree lacks.
func Check(t *tree.Tree, below ...string) error {
	var errs []error
	for _, name := range t.Names() {
		e, _ := t.Get(name)
		if !e.Mode.IsRegular() || !slices.ContainsFunc(below, func(d string) bool { return strings.HasPrefix(name, d+"/") }) {
			continue
		}
		if err := checkFile(t, name, e); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func checkFile(t *tree.Tree, name string, e tree.Entry) error {
	libraries, loader, err := needed(e)
	if err != nil {
		return fmt.Errorf("read /%s: %w", name, err)
	}
	var errs []error
	for _, lib := range libraries {
		if !slices.ContainsFunc(Dirs(), func(d string) bool { return exists(t, path.Join(d, lib)) }) {
			errs = append(errs, fmt.Errorf("/%s needs %s, which no package of the recipe provides", name, lib))
		}
	}
	if loader != "" && !exists(t, loader) {
		errs = append(errs, fmt.Errorf("/%s needs the loader %s, which no package of the recipe provides", name, loader))
	}
	return errors.Join(errs...)
}

// needed returns the DT_NEEDED entries and the interpreter of an ELF file, and
// nothing for any other file.
func needed(e tree.Entry) (libraries []string, loader string, err error) {
	content, _, err := e.Open()
	if err != nil {
		return nil, "", err
	}
	defer content.Close()
	at, ok := content.(io.ReaderAt)
	if !ok {
		at = bytes.NewReader(e.Data)
	}
	magic := make([]byte, 4)
	if _, err := at.ReadAt(magic, 0); err != nil || string(magic) != elf.ELFMAG {
		return nil, "", nil
	}
	f, err := elf.NewFile(at)
	if err != nil {
		return nil, "", err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
			if err != nil {
				return nil, "", err
			}
			loader = strings.TrimRight(string(text), "\x00")
		}
	}
	libraries, err = f.ImportedLibraries()
	return libraries, loader, err
}

// exists follows symbolic links of the tree, as the node's kernel will.
func exists(t *tree.Tree, name string) bool {
	for range 16 {
		e, ok := t.Get(name)
		if !ok {
			return false
		}
		if e.Link == "" {
			return e.Mode.IsRegular()
		}
		if path.IsAbs(e.Link) {
			name = e.Link
		} else {
			name = path.Join(path.Dir(t.Clean(name)), e.Link)
		}
	}
	return false
}
