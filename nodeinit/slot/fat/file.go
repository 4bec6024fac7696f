package fat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
)

// Names are paths with slashes, from the root, with or without the first slash.
// Letters count as the same in both sizes.

// walk returns the folder of a path's last part, and that part.
func (v *Volume) walk(name string) (*folder, string, error) {
	f, err := v.folder(v.root)
	dir, base := path.Split(path.Clean("/" + name))
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if part == "" || err != nil {
			break
		}
		e, ok := f.find(part)
		if !ok || !e.isDir {
			return nil, base, fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
		}
		f, err = v.folder(e.start)
	}
	return f, base, err
}

func (v *Volume) find(name string) (*folder, entry, error) {
	f, base, err := v.walk(name)
	if err != nil {
		return nil, entry{}, err
	}
	e, ok := f.find(base)
	if !ok {
		return nil, entry{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return f, e, nil
}

// List returns the names in a directory. One that does not exist is
// fs.ErrNotExist.
func (v *Volume) List(dir string) ([]string, error) {
	f, _, err := v.walk(dir + "/.x")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range f.entries() {
		names = append(names, e.name)
	}
	return names, nil
}

// ReadFile returns a file's content. One that does not exist is fs.ErrNotExist.
func (v *Volume) ReadFile(name string) ([]byte, error) {
	_, e, err := v.find(name)
	if err != nil {
		return nil, err
	}
	if e.isDir {
		return nil, fmt.Errorf("%s: is a directory", name)
	}
	if e.size == 0 {
		return nil, nil
	}
	chain, err := v.chain(e.start)
	if err == nil && int64(len(chain))*v.cluster < int64(e.size) {
		err = fmt.Errorf("%w: it is shorter than its directory says", ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	data, err := v.read(chain)
	return data[:min(len(data), int(e.size))], err
}

// Create writes a file of exactly size bytes, in place of one of that name. It
// is there whole or not at all, and durable when Create returns. Directories
// are made as needed. If from ends early or has more, nothing has changed.
func (v *Volume) Create(name string, size int64, from io.Reader) error {
	if size < 0 || size > math.MaxUint32 {
		return fmt.Errorf("write %s: FAT takes no file of %d bytes", name, size)
	}
	if err := v.create(name, size, from); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (v *Volume) create(name string, size int64, from io.Reader) error {
	if err := errors.Join(v.forget(), v.reclaim()); err != nil {
		return err
	}
	if err := v.makeDirs(path.Dir(path.Clean("/" + name))); err != nil {
		return err
	}
	chain, err := v.allocate(size)
	if err != nil {
		return err
	}
	if err := v.fill(chain, size, from); err != nil {
		return err
	}
	var start uint32
	if len(chain) > 0 {
		start = chain[0]
		if err := v.link(chain); err != nil {
			return err
		}
	}
	f, base, err := v.walk(name)
	if err != nil {
		return err
	}
	e, exists := f.find(base)
	switch {
	case exists && e.isDir:
		return errors.New("it is a directory")
	case exists:
		err = f.point(e, start, size)
	default:
		err = f.add(f.encode(base, blank(attrFile, start, size)))
	}
	if err != nil {
		return err
	}
	return v.reclaim()
}

// fill writes a file's content into clusters, durably.
func (v *Volume) fill(chain []uint32, size int64, from io.Reader) error {
	err := v.runs(chain, func(at, length, device int64) error {
		block := make([]byte, length)
		if _, err := io.ReadFull(from, block[:min(length, size-at)]); err != nil {
			return fmt.Errorf("read its content, %d bytes: %w", size, err)
		}
		_, err := v.dev.WriteAt(block, device)
		return err
	})
	if err != nil {
		return err
	}
	switch n, err := from.Read(make([]byte, 1)); {
	case n > 0:
		return fmt.Errorf("its content is more than %d bytes", size)
	case err != nil && err != io.EOF:
		return err
	}
	return v.dev.Sync()
}

func (v *Volume) makeDirs(dir string) error {
	if dir == "/" {
		return nil
	}
	if err := v.makeDirs(path.Dir(dir)); err != nil {
		return err
	}
	f, base, err := v.walk(dir)
	if err != nil {
		return err
	}
	if e, ok := f.find(base); ok {
		if !e.isDir {
			return fmt.Errorf("%s is a file", dir)
		}
		return nil
	}
	chain, err := v.allocate(v.cluster)
	if err != nil {
		return err
	}
	block := make([]byte, v.cluster)
	above := f.chain[0]
	if above == v.root {
		above = 0 // as the specification has it
	}
	copy(block, blank(attrDir, chain[0], 0))
	copy(block[entrySize:], blank(attrDir, above, 0))
	copy(block, ".          ")
	copy(block[entrySize:], "..         ")
	if _, err := v.dev.WriteAt(block, v.offset(chain[0])); err != nil {
		return err
	}
	if err := v.dev.Sync(); err != nil {
		return err
	}
	if err := v.link(chain); err != nil {
		return err
	}
	return f.add(f.encode(base, blank(attrDir, chain[0], 0)))
}

// Rename gives a file another name in its directory; there must be none of
// that name. After a power cut there may be both names for the one file.
func (v *Volume) Rename(name, base string) error {
	f, e, err := v.find(name)
	if err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	if _, ok := f.find(base); ok {
		return fmt.Errorf("rename %s to %s: %w", name, base, fs.ErrExist)
	}
	if err := f.rename(e, base); err != nil {
		return fmt.Errorf("rename %s to %s: %w", name, base, err)
	}
	return nil
}

// Remove removes a file. One that does not exist is no error.
func (v *Volume) Remove(name string) error {
	f, e, err := v.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && e.isDir {
		err = errors.New("it is a directory")
	}
	if err == nil {
		err = f.drop(e)
	}
	if err == nil {
		err = v.reclaim()
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
