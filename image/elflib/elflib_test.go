package elflib

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/image/tree"
	"slipway/test/need"
)

// dynamicProgram compiles a program that links the C library.
func dynamicProgram(t *testing.T) []byte {
	t.Helper()
	need.Programs(t, "gcc")
	dir := t.TempDir()
	source, program := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
	if err := os.WriteFile(source, []byte("int main(void) { return 0; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestCheck(t *testing.T) {
	program := dynamicProgram(t)
	root := tree.New("bin", "lib", "lib64")
	err := errors.Join(root.AddFile("bin/a", 0o755, program), root.AddFile("usr/share/text", 0o644, []byte("\x7fEL")),
		root.AddFile("usr/libexec/script", 0o755, []byte("#!/bin/sh\n")))
	if err != nil {
		t.Fatal(err)
	}
	err = Check(root, "usr")
	for _, want := range []string{"/usr/bin/a needs libc.so.6, which no package", "/usr/bin/a needs the loader /lib64/ld-linux-x86-64.so.2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
	if err := Check(root, "opt"); err != nil {
		t.Errorf("a directory without programs: %v", err)
	}

	err = errors.Join(root.AddLink("lib/x86_64-linux-gnu/libc.so.6", "libc-2.so"), root.AddFile("lib/x86_64-linux-gnu/libc-2.so", 0o755, nil),
		root.AddLink("lib64/ld-linux-x86-64.so.2", "/lib/ld.so"), root.AddFile("usr/lib/ld.so", 0o755, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(root, "usr"); err != nil {
		t.Errorf("with library and loader: %v", err)
	}
}
