package module

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"
)

// maxModule bounds one unpacked module; the largest in Debian's kernel has
// about 10 MB.
const maxModule = 128 << 20

// Packed is every module of a kernel package, as the package holds them: each
// compressed by itself. Unpacking all takes long, so it is done for the chosen
// ones only.
type Packed map[string]PackedFile // by module name

// PackedFile is one module of a package.
type PackedFile struct {
	Path string // kernel/net/ipv4/ip_tunnel.ko.xz
	Data []byte
}

// Module is an unpacked module. Its path has no compression suffix.
type Module struct {
	Info
	Data []byte
}

// Add takes a module file; other files are ignored.
func (p Packed) Add(path string, data []byte) {
	if strings.HasSuffix(path, ".ko.xz") || strings.HasSuffix(path, ".ko") {
		p[Name(path)] = PackedFile{Path: path, Data: data}
	}
}

// Unpack returns the named modules and all that they depend on. Names for which
// builtin is true are left out. A name that the package lacks is an error, a
// soft dependency that it lacks is not.
func (p Packed) Unpack(names []string, builtin func(string) bool) (map[string]Module, error) {
	out := map[string]Module{}
	want := map[string]string{} // name -> who needs it
	for _, n := range names {
		want[Name(n)] = "the recipe"
	}
	for len(want) > 0 {
		maps.DeleteFunc(want, func(name, _ string) bool { return builtin(name) })
		got, err := p.unpackAll(want)
		if err != nil {
			return nil, err
		}
		clear(want)
		for _, m := range got {
			out[m.Name] = m
		}
		for _, m := range got {
			p.needs(m, out, want)
		}
	}
	return out, nil
}

// needs puts into want what m depends on and out lacks.
func (p Packed) needs(m Module, out map[string]Module, want map[string]string) {
	soft := slices.DeleteFunc(slices.Clone(m.Soft), func(n string) bool { _, ok := p[n]; return !ok })
	for _, d := range slices.Concat(m.Depends, soft) {
		if _, done := out[d]; !done {
			want[d] = m.Name
		}
	}
}

func (p Packed) unpackAll(want map[string]string) ([]Module, error) {
	var errs []error
	names := slices.Sorted(maps.Keys(want))
	for _, name := range names {
		if _, ok := p[name]; !ok {
			errs = append(errs, fmt.Errorf("module %s, needed by %s, is not in the kernel package", name, want[name]))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	modules := make([]Module, len(names))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		group.Go(func() (err error) {
			modules[i], err = p[name].unpack()
			return err
		})
	}
	return modules, group.Wait()
}

func (f PackedFile) unpack() (Module, error) {
	path, data := f.Path, f.Data
	if plain, ok := strings.CutSuffix(path, ".xz"); ok {
		r, err := xz.NewReader(bytes.NewReader(data))
		if err != nil {
			return Module{}, fmt.Errorf("unpack module %s: %w", path, err)
		}
		if data, err = io.ReadAll(io.LimitReader(r, maxModule)); err != nil {
			return Module{}, fmt.Errorf("unpack module %s: %w", path, err)
		}
		path = plain
	}
	info, err := ParseInfo(path, data)
	return Module{Info: info, Data: data}, err
}
