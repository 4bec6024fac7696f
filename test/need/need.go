// Package need says what a test does where a program, or a file of a Debian
// package, is not there that it needs: it is skipped with the reason, so that
// `go test` is of use on every computer. With SLIPWAY_REQUIRE_TOOLS=1 it fails:
// where `make deps` was run, a test that is skipped for that is one lost. Rights
// that a computer does not give are no matter of this package.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Programs are to be in PATH.
func Programs(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Lacking(t, "needs %s: %v", p, err)
		}
	}
}

// File is to exist, as part of a Debian package.
func File(t testing.TB, path, debian string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Lacking(t, "needs the Debian package %s: %v", debian, err)
	}
}

// Lacking ends a test for want of something that `make deps` or `make image`
// brings.
func Lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("SLIPWAY_REQUIRE_TOOLS") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
