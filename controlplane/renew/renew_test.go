package renew

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slipway/controlplane/leaf"
	"slipway/controlplane/pki"
)

const lifetime = 30 * time.Minute

func newCA(t *testing.T, now time.Time) pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test", now, 1000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newService(t *testing.T, ca pki.CA, paths ...string) *Service {
	s := &Service{Lifetime: lifetime, Root: t.TempDir()}
	for _, path := range paths {
		s.Leaves = append(s.Leaves, leaf.Leaf{Path: path, CA: ca, Request: pki.Request{CommonName: path, Client: true}})
	}
	return s
}

// serial reads the pair as a program does, and names it.
func serial(t *testing.T, s *Service, path string) string {
	t.Helper()
	path = filepath.Join(s.Root, path)
	pair, err := tls.LoadX509KeyPair(path+".crt", path+".key")
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.String()
}

// TestLife: minted before it is ready, the same for almost two thirds of its
// life, and another before only a third is left.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, newCA(t, time.Now()), "/pki/a", "/pki/etcd/b")
		ctx, stop := context.WithCancel(t.Context())
		ready := make(chan struct{})
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx, func() { close(ready) }) }()
		<-ready
		first := serial(t, s, "/pki/a")
		serial(t, s, "/pki/etcd/b")
		time.Sleep(lifetime*2/3 - leaf.Look - time.Second) // the bubble's clock: no time passes
		synctest.Wait()
		if serial(t, s, "/pki/a") != first {
			t.Error("it was renewed too early")
		}
		time.Sleep(leaf.Look)
		synctest.Wait()
		if serial(t, s, "/pki/a") == first {
			t.Error("it was not renewed")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(s.Root + "/pki/*.new"); left != nil {
			t.Errorf("left behind: %v", left)
		}
	})
}

// TestTheSameAgain: a new unit, after a restart or another config, keeps what is good.
func TestTheSameAgain(t *testing.T) {
	ca := newCA(t, time.Now())
	s := newService(t, ca, "/a")
	for range 2 {
		if err := s.Renew(); err != nil {
			t.Fatal(err)
		}
	}
	first := serial(t, s, "/a")
	again := newService(t, ca, "/a", "/b")
	again.Root = s.Root
	if err := again.Renew(); err != nil {
		t.Fatal(err)
	}
	if serial(t, again, "/a") != first {
		t.Error("a good leaf was minted anew")
	}
	if again.Equal(s) || !s.Equal(&Service{Leaves: again.Leaves[:1], Lifetime: lifetime, Root: s.Root}) {
		t.Error("services are equal when they keep the same leaves, and only then")
	}
}

// TestStoppedBetween: the machine stopped after the first of the two renames.
func TestStoppedBetween(t *testing.T) {
	s := newService(t, newCA(t, time.Now()), "/a")
	if err := s.Renew(); err != nil {
		t.Fatal(err)
	}
	_, key, err := s.Leaves[0].Mint(time.Now(), lifetime)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Root+"/a.key", key.Data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Renew(); err != nil {
		t.Fatal(err)
	}
	serial(t, s, "/a") // fails if they do not match
	if info, err := os.Stat(s.Root + "/a.key"); err != nil || info.Mode() != 0o600 {
		t.Errorf("the key is %v (%v)", info.Mode(), err)
	}
}

// TestOneBadLeaf: one that cannot be made does not keep the others from it.
func TestOneBadLeaf(t *testing.T) {
	s := newService(t, newCA(t, time.Now()), "/a", "/b")
	s.Leaves[0].CA.KeyPEM = nil
	if err := s.Renew(); err == nil || !strings.Contains(err.Error(), "/a.crt: read CA") {
		t.Errorf("Renew = %v", err)
	}
	serial(t, s, "/b")
}

// TestClock: what was made by a clock that was off, within its CA's life, is made
// anew once the clock is right.
func TestClock(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 900 * time.Hour, "behind": -900 * time.Hour} {
		right := time.Now()
		ca, err := pki.NewCA("test", right.Add(-950*time.Hour), 10000*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		s := newService(t, ca, "/a")
		var made []string
		for _, now := range []time.Time{right.Add(off), right, right} {
			s.Now = func() time.Time { return now }
			if err := s.Renew(); err != nil {
				t.Fatal(err)
			}
			made = append(made, serial(t, s, "/a"))
		}
		if made[0] == made[1] || made[1] != made[2] {
			t.Errorf("%s: made %v", name, made)
		}
	}
}

// TestClockYearsOff: outside its CA's life nothing is made and nothing lost, and
// it is said once what to do. When the clock is right all is as it was.
func TestClockYearsOff(t *testing.T) {
	right := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	s := newService(t, newCA(t, right), "/a", "/b")
	s.Now = func() time.Time { return right }
	if err := s.Renew(); err != nil {
		t.Fatal(err)
	}
	first := serial(t, s, "/a") + serial(t, s, "/b")
	for _, tt := range []struct {
		now  time.Time
		want string
	}{
		{time.Unix(0, 0), "this machine's clock is wrong: it says 1970-01-01"},
		{right.AddDate(70, 0, 0), "this machine's clock is wrong, or the CA has ended: it says 2096-06-01"},
	} {
		s.Now = func() time.Time { return tt.now }
		want := tt.want + ", and the CA is valid from 2026-06-01 to 2026-07-13; no certificate of it was changed, and the data is kept; " +
			"the machine sets its clock by the boot service: see that it reaches that, or set the clock in the machine's firmware"
		if err := s.Renew(); err == nil || err.Error() != want {
			t.Errorf("Renew = %v, want %s", err, want)
		}
		s.Now = func() time.Time { return right }
		if err := s.Renew(); err != nil || serial(t, s, "/a")+serial(t, s, "/b") != first {
			t.Errorf("with the right clock again: %v, or others", err)
		}
	}
}
