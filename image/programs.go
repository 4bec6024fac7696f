package image

import (
	"context"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	"slipway/image/gobuild"
	"slipway/image/recipe"
)

// What our own programs know of the image that they are part of.
const (
	versionVariable    = "slipway/configs/version.Version"
	committedVariable  = "slipway/configs/version.Committed"
	kubernetesVariable = "slipway/configs/version.Kubernetes"
)

// programs maps import paths to compiled programs on this computer.
type programs map[string]string

// compile builds every program of the recipe. Upstream programs are kept by the
// hash of their sources; ours are left to Go's own cache, so that a change in
// any package they import is seen.
//
// The latter are written below dir.
func (b *Builder) compile(ctx context.Context, r *recipe.Recipe, dir string) (programs, error) {
	built := programs{}
	cache := gobuild.Cache{Dir: filepath.Join(b.Cache, "programs")}
	for _, p := range r.Payload.Programs {
		start := time.Now()
		path, err := cache.Build(ctx, program(p, filepath.Join(b.Source, r.Payload.Module), nil))
		if err != nil {
			return nil, err
		}
		built[p.Import] = path
		b.Log.Info("program ready", "phase", "programs", "program", p.Import, "took", time.Since(start).Round(time.Millisecond))
	}
	known := map[string]string{versionVariable: b.Version, committedVariable: seconds(b.Committed), kubernetesVariable: kubernetesVersion(r)}
	for _, p := range ownPrograms(r) {
		start := time.Now()
		path := filepath.Join(dir, filepath.FromSlash(p.Import))
		if err := program(p, b.Source, known).Build(ctx, path); err != nil {
			return nil, err
		}
		built[p.Import] = path
		b.Log.Info("program ready", "phase", "programs", "program", p.Import, "took", time.Since(start).Round(time.Millisecond))
	}
	return built, nil
}

// seconds is a time as package version has it.
func seconds(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.Unix(), 10)
}

// kubernetesVersion is what the recipe has the payload's programs call
// themselves; empty if there is no Kubernetes among them.
func kubernetesVersion(r *recipe.Recipe) string {
	for _, p := range r.Payload.Programs {
		if version := p.Variables["k8s.io/component-base/version.gitVersion"]; version != "" {
			return version
		}
	}
	return ""
}

// ownPrograms lists the programs that are built from this module.
func ownPrograms(r *recipe.Recipe) []recipe.Program {
	list := []recipe.Program{r.Init}
	for _, image := range r.Images {
		for _, f := range image.Files {
			if f.Program != "" {
				list = append(list, recipe.Program{Import: f.Program})
			}
		}
	}
	return list
}

// program is how one of the recipe is built; what it is to know besides its own
// variables is in known.
func program(p recipe.Program, dir string, known map[string]string) gobuild.Program {
	variables := map[string]string{}
	maps.Copy(variables, known)
	maps.Copy(variables, p.Variables)
	return gobuild.Program{Dir: dir, Import: p.Import, Static: p.Static, Tags: p.Tags, Variables: variables}
}
