package image

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeSample writes two artifacts and their manifest.
func writeSample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out := artifacts{dir: dir}
	for _, name := range []string{"kernel", "loaders/snponly.efi"} {
		out.create(name, func(w io.Writer) error {
			_, err := io.WriteString(w, "content of "+name)
			return err
		})
	}
	if out.err != nil {
		t.Fatal(out.err)
	}
	m := &Manifest{Version: "v1", Kernel: "6.12", Profile: Dev, Artifacts: out.list}
	if err := m.write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestVerify(t *testing.T) {
	dir := writeSample(t)
	m, err := Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := m.Find("loaders/snponly.efi"); !ok || a.Size != 30 || m.Version != "v1" {
		t.Errorf("manifest is %+v", m)
	}
}

func TestVerifyRefuses(t *testing.T) {
	tests := []struct {
		name, want string
		change     func(dir string) error
	}{
		{"changed", "verify kernel: it has 1 bytes with SHA-256", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "kernel"), []byte("x"), 0o644)
		}},
		{"missing", "verify loaders/snponly.efi: open", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "loaders")) }},
		{"no manifest", "slipway image build", func(dir string) error { return os.Remove(filepath.Join(dir, ManifestName)) }},
		{"outside", "verify ../x: the name leaves the directory", func(dir string) error {
			return (&Manifest{Artifacts: []Artifact{{Name: "../x"}}}).write(dir)
		}},
		{"unknown field", "unknown field", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, ManifestName), []byte(`{"verison": "1"}`), 0o644)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := writeSample(t)
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Verify(dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 2 * time.Hour, "new": 0} {
		path := filepath.Join(dir, name, "sub")
		err := errors.Join(os.MkdirAll(path, 0o755), os.Chtimes(filepath.Dir(path), now.Add(-age), now.Add(-age)))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(prune(dir, now.Add(-time.Hour)), prune(filepath.Join(dir, "absent"), now)); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 || filepath.Base(left[0]) != "new" {
		t.Errorf("left are %v", left)
	}
}

func TestParseProfile(t *testing.T) {
	if p, err := ParseProfile("release"); err != nil || p != Release {
		t.Errorf("release is %q, %v", p, err)
	}
	if _, err := ParseProfile("fast"); err == nil || !strings.Contains(err.Error(), "want dev or release") {
		t.Errorf("error is %v", err)
	}
}
