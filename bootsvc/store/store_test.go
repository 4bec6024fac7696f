package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

type document struct {
	Name  string
	Count int
}

func config(t *testing.T, dir string) Config {
	t.Helper()
	return Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), config(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestDocumentsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(t.Context(), config(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewTable[document](first, "plain").Update(t.Context(), "a", func(d *document) error {
		*d = document{"a", 1}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	first.Close()

	got, err := NewTable[document](open(t, dir), "plain").Get(t.Context(), "a")
	if err != nil || got != (document{"a", 1}) {
		t.Errorf("after the restart: %v, %v", got, err)
	}
}

func TestStartsWithinItsBudget(t *testing.T) {
	dir := t.TempDir()
	for _, state := range []string{"new", "existing"} {
		began := time.Now()
		s, err := Open(t.Context(), config(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a store with %s state took %v to open and close", state, took)
		} else {
			t.Logf("%s: %v", state, took)
		}
	}
}

func TestTable(t *testing.T) {
	s := open(t, t.TempDir())
	for name, table := range map[string]Table[document]{"plain": NewTable[document](s, "t1"), "sealed": SealedTable[document](s, "t2")} {
		t.Run(name, func(t *testing.T) {
			if _, err := table.Get(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("a missing document: %v", err)
			}
			for _, id := range []string{"b", "a", "a"} {
				if _, err := table.Update(t.Context(), id, func(d *document) error { d.Name = id; d.Count++; return nil }); err != nil {
					t.Fatal(err)
				}
			}
			list, err := table.List(t.Context())
			if err != nil || fmt.Sprint(list) != "[{a 2} {b 1}]" {
				t.Errorf("the list is %v, %v", list, err)
			}
			if err := table.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			if _, err := table.Get(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("a deleted document: %v", err)
			}
		})
	}
}

func TestNoUpdateIsLostAmongWriters(t *testing.T) {
	table := NewTable[document](open(t, t.TempDir()), "counters")
	const writers, rounds = 8, 10
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range rounds {
				if _, err := table.Update(context.Background(), "n", func(d *document) error { d.Count++; return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got, err := table.Get(t.Context(), "n"); err != nil || got.Count != writers*rounds {
		t.Errorf("%d writers, %d rounds: %d, %v", writers, rounds, got.Count, err)
	}
}

func TestAtomicallyWritesAllOrNothing(t *testing.T) {
	s := open(t, t.TempDir())
	table := NewTable[document](s, "pair")
	stop := errors.New("stop")
	write := func(tx *Tx, end error) error {
		return errors.Join(table.Save(tx, "a", document{Name: "a"}), table.Save(tx, "b", document{Name: "b"}), end)
	}
	if err := s.Atomically(t.Context(), func(tx *Tx) error { return write(tx, stop) }); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if list, _ := table.List(t.Context()); len(list) != 0 {
		t.Errorf("a failed transaction wrote %v", list)
	}
	if err := s.Atomically(t.Context(), func(tx *Tx) error { return write(tx, nil) }); err != nil {
		t.Fatal(err)
	}
	if list, _ := table.List(t.Context()); len(list) != 2 {
		t.Errorf("a transaction wrote %v", list)
	}
}

func TestWaitForSeesAChangeThatComesLater(t *testing.T) {
	table := NewTable[document](open(t, t.TempDir()), "watched")
	checks := 0
	err := table.WaitFor(t.Context(), func() (bool, error) {
		checks++
		if checks == 1 { // after the watch has begun: the change must wake it
			_, err := table.Update(t.Context(), "a", func(d *document) error { d.Count = 1; return nil })
			return false, err
		}
		d, err := table.Get(t.Context(), "a")
		return d.Count == 1, err
	})
	if err != nil || checks != 2 {
		t.Errorf("%d checks, %v", checks, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = table.WaitFor(ctx, func() (bool, error) { cancel(); return false, nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSecretsAreNotOnDisk(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), config(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]Table[string]{"plain-marker": NewTable[string](s, "x"), "sealed-marker": SealedTable[string](s, "y")} {
		if _, err := table.Update(t.Context(), "m", func(v *string) error { *v = name; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if !onDisk(t, dir, "plain-marker") {
		t.Error("the test cannot see what is stored in clear")
	}
	if onDisk(t, dir, "sealed-marker") {
		t.Error("a sealed document is on disk in clear")
	}
}

func onDisk(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found = found || bytes.Contains(data, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSealedValuesBelongToTheirPlace(t *testing.T) {
	s := open(t, t.TempDir())
	box := s.encrypt("/slipway/a", []byte("secret"))
	if plain, err := s.decrypt("/slipway/a", box); err != nil || string(plain) != "secret" {
		t.Errorf("decrypt: %q, %v", plain, err)
	}
	if _, err := s.decrypt("/slipway/b", box); !errors.Is(err, errUnseal) {
		t.Errorf("a value moved to another key: %v", err)
	}
	box[len(box)-1] ^= 1
	if _, err := s.decrypt("/slipway/a", box); !errors.Is(err, errUnseal) {
		t.Errorf("a changed value: %v", err)
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), config(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	file := filepath.Join(dir, "key")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info.Mode(), err)
	}
	for name, test := range map[string]struct{ content, want string }{
		"another key": {"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "not the one its secrets were encrypted with"},
		"too short":   {"AAAA", "does not hold 32 bytes"},
		"no base64":   {"%%%", "does not hold 32 bytes"},
	} {
		if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), config(t, dir)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestOneProcessPerFolder(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(t.Context(), config(t, dir)); err == nil || !strings.Contains(err.Error(), "another slipway serve") {
		t.Errorf("a second store in the same folder: %v", err)
	}
}

func TestUnreachableEndpointsAreAClearError(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c := config(t, t.TempDir())
	c.Endpoints = []string{"127.0.0.1:1"}
	if _, err := Open(ctx, c); err == nil || !strings.Contains(err.Error(), "is etcd running") {
		t.Errorf("unreachable etcd: %v", err)
	}
}
