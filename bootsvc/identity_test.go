package bootsvc

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/bootsvc/api/client"
	"slipway/bootsvc/store"
)

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	who, err := newIdentity(t.Context(), s, netip.MustParseAddr("10.0.0.1"), clock)
	if err != nil {
		t.Fatal(err)
	}
	first, err := who.certificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"10.0.0.1", "127.0.0.1", client.ServerName} {
		if err := first.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if second := first.Certificate[1]; string(second) != string(who.ca.View().Signer.Raw) {
		t.Error("the chain does not have the CA, which machines look for")
	}
	now = now.Add(serverValidity/2 + time.Hour)
	if again, err := who.certificate(); err != nil || again != first {
		t.Errorf("renewed after half its life: %v", err)
	}
	now = now.Add(serverValidity / 2)
	if again, err := who.certificate(); err != nil || again == first || !again.Leaf.NotAfter.After(now) {
		t.Errorf("not renewed at its end: %v", err)
	}
	other, err := newIdentity(t.Context(), s, netip.MustParseAddr("10.0.0.2"), clock)
	if err != nil || !other.ca.View().Signer.Equal(who.ca.View().Signer) {
		t.Errorf("a second start made another CA: %v", err)
	}
}

func TestTheAdminContextIsPrivateAndComplete(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	who, err := newIdentity(t.Context(), s, netip.MustParseAddr("10.0.0.1"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var keys [2]string
	for n := range keys { // the second start replaces what the first wrote
		if keys[n], err = who.writeFiles(dir, "https://10.0.0.1:8443"); err != nil {
			t.Fatal(err)
		}
	}
	if keys[0] != keys[1] {
		t.Error("the second start made the administrator somebody else")
	}
	path := filepath.Join(dir, "admin.yaml")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin.yaml: %v, %v", info.Mode(), err)
	}
	c, err := client.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.New(); err != nil || c.Servers[0] != "https://10.0.0.1:8443" {
		t.Errorf("%+v, %v", c, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".part-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
