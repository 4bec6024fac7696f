package authority

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"slipway/bootsvc/store"
)

func newStore(t *testing.T) *store.Store {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func open(t *testing.T, s *store.Store) *Keeper {
	t.Helper()
	k, err := Open(t.Context(), s, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestSeveralBootServices: what one of them changes, the others follow, and tell
// until that works; and of several that move it on at once, one does.
func TestSeveralBootServices(t *testing.T) {
	s := newStore(t)
	one, two := open(t, s), open(t, s)
	if !one.View().Signer.Equal(two.View().Signer) {
		t.Fatal("they have two CAs")
	}
	ctx, cancel := context.WithCancel(t.Context())
	followed, done := make(chan *View), make(chan error, 1)
	go func() {
		done <- two.Run(ctx, slog.New(slog.DiscardHandler), func(v *View) error { followed <- v; return nil })
	}()
	r, err := one.Change(t.Context(), func(r Record) (Record, error) { return r.Begin(noon) })
	if err != nil {
		t.Fatal(err)
	}
	if v := <-followed; v.Digest != digest(r.Trusted()) || two.View() != v {
		t.Error("the other does not follow")
	}
	at, err := one.Table().Get(t.Context(), ID)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := one.Turn(t.Context(), at, nil, noon)
	if err != nil || !moved {
		t.Fatalf("moved %v, %v", moved, err)
	}
	<-followed
	if moved, err = two.Turn(t.Context(), at, nil, noon); err != nil || moved {
		t.Errorf("who looked before the change moved it too: %v, %v", moved, err)
	}
	if _, err := one.Change(t.Context(), func(r Record) (Record, error) { return r, errors.New("no") }); err == nil {
		t.Error("an error was swallowed")
	}
	if third := open(t, s); third.View().Rotation == nil || third.View().Rotation.Phase != Use {
		t.Errorf("who starts now is in %v", third.View().Rotation)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPeople: who has used credentials, once an hour at most, and until they end.
func TestPeople(t *testing.T) {
	p := NewPeople(newStore(t))
	ann := Credential{Key: "a1", Name: "ann", Roles: []string{"slipway:operator"}, Until: noon.Add(24 * time.Hour), Trusts: "old", Used: noon}
	bob := Credential{Key: "b1", Name: "bob", Until: noon.Add(time.Hour), Used: noon}
	for _, c := range []Credential{ann, bob} {
		if err := p.Seen(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	holders := func(now time.Time) []Holder {
		t.Helper()
		all, err := p.Holders(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if got := holders(noon); len(got) != 2 || got[0].Name != "ann (operator)" || got[0].Trusts != "old" || !got[0].Person || got[0].Missing == "" {
		t.Errorf("%+v", got)
	}
	ann.Used = noon.Add(time.Minute)
	if err := errors.Join(p.Seen(t.Context(), ann), p.Renewed(t.Context(), "a1", "new"), p.Renewed(t.Context(), "c1", "new")); err != nil {
		t.Fatal(err)
	}
	if got := holders(noon.Add(2 * time.Hour)); len(got) != 1 || got[0].Trusts != "new" {
		t.Errorf("two hours later: %+v", got)
	}
	ann.Trusts = "old" // a copy of the context that was not renewed
	if err := p.Seen(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	if got := holders(noon); len(got) != 1 || got[0].Trusts != "old" {
		t.Errorf("a copy was used: %+v", got)
	}
}
