package module

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Loader loads modules of the running kernel from /usr/lib/modules. Its
// methods may be called from any goroutine; a file is loaded once.
type Loader struct {
	dir          string
	aliases      Aliases
	dependencies dependencies
	insert       func(path string) error

	mu     sync.Mutex
	loaded map[string]func() error // by file; waits for its end
}

// parallel is how many modules load at once. Loading is mostly relocation and
// checking signatures: work for processors, and there may be few of them.
const parallel = 4

// NewLoader reads the module indexes below root ("/").
func NewLoader(root string) (*Loader, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	dir := filepath.Join(root, "usr/lib/modules", unix.ByteSliceToString(name.Release[:]))
	return open(dir, insert)
}

func open(dir string, insert func(path string) error) (*Loader, error) {
	aliases, err := os.ReadFile(filepath.Join(dir, "modules.alias"))
	if err != nil {
		return nil, fmt.Errorf("read module aliases: %w", err)
	}
	needs, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("read module dependencies: %w", err)
	}
	return &Loader{
		dir: dir, insert: insert, loaded: make(map[string]func() error),
		aliases: Aliases(aliases), dependencies: parseDependencies(string(needs)),
	}, nil
}

// Load loads modules by name or alias, several at once, and returns when all
// are loaded. It tries all; the errors are joined, each naming its module.
func (l *Loader) Load(ctx context.Context, names ...string) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	errs := make([]error, len(names))
	for i, name := range names {
		group.Go(func() error {
			if errs[i] = ctx.Err(); errs[i] == nil {
				errs[i] = l.load(name)
			}
			return nil
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (l *Loader) load(name string) error {
	modules := l.aliases.Match(name)
	if len(modules) == 0 {
		modules = []string{name}
	}
	var errs []error
	for _, module := range modules {
		files := l.dependencies.files(module)
		if files == nil && !l.builtin(module) {
			errs = append(errs, fmt.Errorf("load module %s: this kernel has none of that name", module))
		}
		for _, file := range files {
			if err := l.once(file)(); err != nil {
				errs = append(errs, fmt.Errorf("load module %s: %s: %w", module, nameOf(file), err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// once returns what loads a file, or waits for somebody else to have loaded it.
func (l *Loader) once(file string) func() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loaded[file] == nil {
		l.loaded[file] = sync.OnceValue(func() error { return l.insert(filepath.Join(l.dir, file)) })
	}
	return l.loaded[file]
}

// builtin reports whether a module is part of the kernel. It is asked rarely,
// so the list is read each time; without the list nothing is known to be.
func (l *Loader) builtin(module string) bool {
	list, err := os.ReadFile(filepath.Join(l.dir, "modules.builtin"))
	if err != nil {
		return false
	}
	is := func(file string) bool { return nameOf(file) == normalize(module) }
	return slices.ContainsFunc(strings.Fields(string(list)), is)
}

// insert is finit_module(2). A compressed file is for the kernel to unpack.
func insert(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(file.Fd()), "", flags)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
