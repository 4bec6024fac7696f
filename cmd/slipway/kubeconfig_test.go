package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKubeconfig: to standard output the credentials themselves, to a file this
// program, which gives them.
func TestKubeconfig(t *testing.T) {
	ca, cert, key := issueFor(t, "ann")
	boot := &fakeBoot{kubeconfig: kubeconfigFor(t, "https://192.0.2.1:6443", ca, cert, key)}
	_, contextFile := startRack(t, boot.handler())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	slipway := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"cluster", "--context", contextFile}, args...), nil, &out, &out); code != 0 {
			t.Fatalf("exit code %d: %s", code, out.String())
		}
		return out.String()
	}
	if got := slipway("kubeconfig"); got != string(boot.kubeconfig) {
		t.Errorf("embedded:\n%s", got)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	slipway("kubeconfig", "--file", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"apiVersion: client.authentication.k8s.io/v1\n", "- credential\n", "- " + contextFile + "\n", "server: https://192.0.2.1:6443\n", "interactiveMode: Never\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "client-key-data") {
		t.Error("the file holds a key")
	}
	slipway("kubeconfig", "--file", file, "--exec=false")
	if text, err := os.ReadFile(file); err != nil || !bytes.Equal(text, boot.kubeconfig) {
		t.Errorf("embedded, to a file: %v\n%s", err, text)
	}

	var given execCredential
	first := slipway("credential", "prod")
	if err := json.Unmarshal([]byte(first), &given); err != nil || given.Kind != "ExecCredential" || given.Status.Cert != string(cert) || given.Status.Key != string(key) {
		t.Errorf("%v: %s", err, first)
	}
	boot.kubeconfig = nil // the boot service would give others
	if again := slipway("credential", "prod"); again != first {
		t.Errorf("the second time:\n%s", again)
	}
	kept, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "slipway", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept: %v, %v", kept, err)
	}
	if info, err := os.Stat(kept[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestCredentialRenews: kept ones do while more than a third of their life, an hour and ten minutes, is
// left, and until their end if nobody gives new ones.
func TestCredentialRenews(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cache", "credential.json")
	start, issued, down := time.Now(), 0, false
	issue := func(context.Context) ([]byte, error) {
		if down {
			return nil, errors.New("connection refused")
		}
		issued++
		ca, cert, key := issueFor(t, "ann")
		return kubeconfigFor(t, "https://192.0.2.1:6443", ca, cert, key), nil
	}
	for _, step := range []struct {
		after  time.Duration
		down   bool
		issued int
		fails  bool
	}{
		{0, false, 1, false},
		{36 * time.Minute, false, 1, false},
		{37 * time.Minute, true, 1, false},
		{61 * time.Minute, true, 1, true},
		{37 * time.Minute, false, 2, false},
	} {
		down = step.down
		if _, err := credential(t.Context(), file, start.Add(step.after), issue); (err != nil) != step.fails || issued != step.issued {
			t.Errorf("after %s: %v, issued %d times, want %d", step.after, err, issued, step.issued)
		}
	}
	if err := os.WriteFile(file, []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := credential(t.Context(), file, start, issue); err != nil || issued != 3 {
		t.Errorf("a broken file: %v, issued %d times", err, issued)
	}
}
