package proc

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File is a file that a unit needs before it starts.
type File struct {
	Path string // absolute
	Mode os.FileMode
	Data []byte
}

// WriteFiles writes the files, each whole or not at all, and makes their
// folders (0755). A file that already is as it should be is not touched, so
// it may be repeated. All are tried; the errors are joined.
func WriteFiles(files []File) error {
	var errs []error
	for _, f := range files {
		if err := f.write(); err != nil {
			errs = append(errs, fmt.Errorf("write %s: %w", f.Path, err))
		}
	}
	return errors.Join(errs...)
}

func (f File) write() error {
	if f.current() {
		return nil
	}
	dir := filepath.Dir(f.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once it has its name
	_, err = tmp.Write(f.Data)
	err = errors.Join(err, tmp.Chmod(f.Mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), f.Path)
}

func (f File) current() bool {
	info, err := os.Lstat(f.Path)
	if err != nil || info.Mode() != f.Mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) {
		return false
	}
	data, err := os.ReadFile(f.Path)
	return err == nil && bytes.Equal(data, f.Data)
}

// digest is of the files' names and contents. One that cannot be read counts
// as empty: the program that needs it will say so.
func digest(paths []string) (sum [sha256.Size]byte) {
	all := sha256.New()
	for _, path := range paths {
		data, _ := os.ReadFile(path)
		fmt.Fprintf(all, "%q %x\n", path, sha256.Sum256(data))
	}
	return [sha256.Size]byte(all.Sum(nil))
}
