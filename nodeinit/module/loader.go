package module

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/kmodule"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Loader loads modules of the running kernel from /usr/lib/modules. Its
// methods may be called from any goroutine; a module is loaded once.
type Loader struct {
	aliases *Aliases
	probe   func(name, params string) error
	builtin map[string]bool
}

// parallel is how many modules load at once. Loading is mostly relocation,
// which is work for processors, and there may be few of them.
const parallel = 4

// NewLoader reads the module indexes below root ("/").
func NewLoader(root string) (*Loader, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	dir := filepath.Join(root, "usr/lib/modules", unix.ByteSliceToString(name.Release[:]))
	file, err := os.Open(filepath.Join(dir, "modules.alias"))
	if err != nil {
		return nil, fmt.Errorf("find modules of this kernel: %w", err)
	}
	defer file.Close()
	aliases, err := ParseAliases(file)
	if err != nil {
		return nil, err
	}
	prober, err := kmodule.NewProber(kmodule.ProbeOpts{RootDir: root, IgnoreProcMods: true})
	if err != nil {
		return nil, fmt.Errorf("read module dependencies: %w", err)
	}
	return &Loader{aliases, prober.Probe, readBuiltin(dir)}, nil
}

// readBuiltin lists what needs no loading. Without the file, nothing is known to.
func readBuiltin(dir string) map[string]bool {
	names := make(map[string]bool)
	text, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return names
	}
	for path := range strings.FieldsSeq(string(text)) {
		names[normalize(strings.TrimSuffix(filepath.Base(path), ".ko"))] = true
	}
	return names
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
	if l.builtin[normalize(name)] {
		return nil
	}
	wanted := l.aliases.Match(name)
	if len(wanted) == 0 {
		wanted = []string{name}
	}
	var errs []error
	for _, module := range wanted {
		if err := l.probe(module, ""); err != nil {
			errs = append(errs, fmt.Errorf("load module %s: %w", module, err))
		}
	}
	return errors.Join(errs...)
}

// ForDevices returns the modules that devices ask for, each once. Aliases
// without a module are normal: most drivers are built in or not needed.
func (l *Loader) ForDevices(aliases []string) (names []string) {
	for _, alias := range aliases {
		if bus, _, _ := strings.Cut(alias, ":"); slices.Contains(ignoredBuses, bus) {
			continue
		}
		names = append(names, l.aliases.Match(alias)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ignoredBuses ask for modules that a node does without: per processor
// feature, dozens of accelerated ciphers that the kernel asks for by name
// when something uses them; per mainboard, buttons and fans of laptops.
var ignoredBuses = []string{"cpu", "dmi"}
