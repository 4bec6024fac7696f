package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestKillCgroup: against a folder that looks like a cgroup.
func TestKillCgroup(t *testing.T) {
	dir := t.TempDir()
	if err := killCgroup(t.Context(), filepath.Join(dir, "none")); err != nil {
		t.Errorf("without a cgroup: %v", err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.kill", "")
	write("cgroup.events", "populated 0\nfrozen 0\n")
	if err := killCgroup(t.Context(), dir); err != nil {
		t.Errorf("of an empty cgroup: %v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "cgroup.kill")); string(text) != "1" {
		t.Errorf("cgroup.kill holds %q", text)
	}
	write("cgroup.events", "populated 1\nfrozen 0\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := killCgroup(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("of a cgroup that stays: %v", err)
	}
}
