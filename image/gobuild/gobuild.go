// Package gobuild compiles Go programs so that the same source gives the same
// bytes, wherever and by whomever it is built, and keeps the results by the hash
// of what went in.
package gobuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Program is one program to compile for linux/amd64.
type Program struct {
	Dir       string // directory of the Go module that builds it
	Import    string
	Static    bool // link C code statically; without it there is no C code
	Tags      []string
	Variables map[string]string // package variables set at link time
}

// Build compiles the program to the file out.
func (p Program) Build(ctx context.Context, out string) error {
	cmd := exec.CommandContext(ctx, "go", p.arguments(out)...)
	cmd.Dir = p.Dir
	cmd.Env = append(os.Environ(), p.environment()...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.Import, err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}

func (p Program) arguments(out string) []string {
	link := []string{"-s", "-w", "-buildid="}
	for _, name := range slices.Sorted(maps.Keys(p.Variables)) {
		link = append(link, "-X", name+"="+p.Variables[name])
	}
	if p.Static {
		link = append(link, "-extldflags", "-static")
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", strings.Join(link, " ")}
	if len(p.Tags) > 0 {
		args = append(args, "-tags", strings.Join(p.Tags, ","))
	}
	return append(args, "-o", out, p.Import)
}

// environment overrides what a person's shell may have set and would change
// the result.
func (p Program) environment() []string {
	cgo := "0"
	if p.Static {
		cgo = "1"
	}
	return []string{"GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off",
		"CGO_ENABLED=" + cgo, "CGO_CFLAGS=-O2", "CGO_CPPFLAGS=", "CGO_LDFLAGS=", "CC=gcc"}
}

// Cache keeps compiled programs in a directory.
type Cache struct{ Dir string }

// Build returns the path of the compiled program: from the cache when neither
// the module's own files, the flags nor the tools changed. Its dependencies are
// covered by go.sum.
func (c Cache) Build(ctx context.Context, p Program) (string, error) {
	key, err := p.key(ctx)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", p.Import, err)
	}
	path := filepath.Join(c.Dir, key, filepath.Base(p.Import))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(c.Dir, "build-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "program")
	if err := p.Build(ctx, out); err != nil {
		return "", err
	}
	return path, os.Rename(out, path)
}

// key hashes everything that decides the program's bytes.
func (p Program) key(ctx context.Context) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, p.arguments(""), p.environment())
	if err := p.hashTools(ctx, h); err != nil {
		return "", err
	}
	if err := HashFiles(h, p.Dir, isSource); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}

func isSource(name string) bool {
	return filepath.Ext(name) == ".go" || filepath.Base(name) == "go.mod" || filepath.Base(name) == "go.sum"
}

// hashTools writes the versions of the compilers, and of the C libraries that
// become part of a static program.
func (p Program) hashTools(ctx context.Context, h io.Writer) error {
	commands := [][]string{{"go", "env", "GOVERSION"}}
	if p.Static {
		commands = append(commands, []string{"gcc", "-dumpfullversion"}, []string{"gcc", "-print-file-name=libc.a"},
			[]string{"gcc", "-print-file-name=libseccomp.a"})
	}
	for _, c := range commands {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		cmd.Dir = p.Dir
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("run %s: %w", strings.Join(c, " "), err)
		}
		fmt.Fprintf(h, "%s", out)
		if file := strings.TrimSpace(string(out)); filepath.IsAbs(file) {
			if err := hashFile(h, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// HashFiles writes names and contents of the files below dir that keep accepts,
// in a fixed order. Directories whose name begins with a dot are skipped.
func HashFiles(h io.Writer, dir string, keep func(name string) bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != dir && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || !keep(rel) {
			return err
		}
		fmt.Fprintln(h, filepath.ToSlash(rel))
		return hashFile(h, path)
	})
}

func hashFile(h io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(h, f)
	return errors.Join(err, f.Close())
}
