package gobuild

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// write makes a small Go module.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func hello() map[string]string {
	return map[string]string{"go.mod": "module hello\n\ngo 1.26\n", "cmd/hi/main.go": "package main\n\nvar word = \"?\"\n\nfunc main() { println(word) }\n"}
}

// TestBuild compiles the same module in two directories, under settings of a
// person's shell that would change the result.
func TestBuild(t *testing.T) {
	var programs [2]string
	for i, flags := range []string{"", "-race"} {
		t.Setenv("GOFLAGS", flags)
		p := Program{Dir: write(t, hello()), Import: "hello/cmd/hi", Variables: map[string]string{"main.word": "set"}}
		path, err := Cache{Dir: t.TempDir()}.Build(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(path).CombinedOutput()
		if err != nil || string(out) != "set\n" {
			t.Errorf("the program says %q, %v", out, err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		programs[i] = string(data)
	}
	if programs[0] != programs[1] {
		t.Error("the two programs differ")
	}
}

func TestCacheKey(t *testing.T) {
	cache := Cache{Dir: t.TempDir()}
	p := Program{Dir: write(t, hello()), Import: "hello/cmd/hi"}
	first, err := cache.Build(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, []byte("from the cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	again, err := cache.Build(t.Context(), p)
	if data, readErr := os.ReadFile(again); err != nil || readErr != nil || string(data) != "from the cache" {
		t.Errorf("an unchanged program was built again: %v %v", err, readErr)
	}
	if err := os.WriteFile(filepath.Join(p.Dir, "cmd/hi/more.go"), []byte("package main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := cache.Build(t.Context(), p); err != nil || changed == first {
		t.Errorf("a changed program came from the cache: %v", err)
	}
}

func TestBuildReportsCompiler(t *testing.T) {
	files := hello()
	files["cmd/hi/main.go"] = "package main\n\nfunc main() { nonsense() }\n"
	_, err := Cache{Dir: t.TempDir()}.Build(t.Context(), Program{Dir: write(t, files), Import: "hello/cmd/hi"})
	if err == nil || !strings.Contains(err.Error(), "build hello/cmd/hi") || !strings.Contains(err.Error(), "undefined: nonsense") {
		t.Errorf("error is %v", err)
	}
}
