package logring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func texts(lines []Line) (all []string) {
	for _, l := range lines {
		all = append(all, l.Text)
	}
	return all
}

func TestTail(t *testing.T) {
	var r Ring
	if got := r.Tail(0); len(got) != 0 {
		t.Errorf("an empty ring has %v", got)
	}
	fmt.Fprint(&r, "one\ntwo\r\n")
	fmt.Fprint(&r, "bad \xff byte\n")
	for _, test := range []struct {
		n    int
		want []string
	}{
		{0, []string{"one", "two", "bad \uFFFD byte"}},
		{1, []string{"bad \uFFFD byte"}},
		{2, []string{"two", "bad \uFFFD byte"}},
		{9, []string{"one", "two", "bad \uFFFD byte"}},
	} {
		if diff := cmp.Diff(test.want, texts(r.Tail(test.n))); diff != "" {
			t.Errorf("Tail(%d) (-want +got):\n%s", test.n, diff)
		}
	}
}

func TestRingForgetsTheOldest(t *testing.T) {
	var r Ring
	long := strings.Repeat("x", RingSize/4-lineCost)
	for i := range 10 {
		fmt.Fprintf(&r, "%d%s\n", i, long[1:])
	}
	got := r.Tail(0)
	if len(got) != 4 || got[0].Text[0] != '6' {
		t.Errorf("%d lines, the first %.5q", len(got), got[0].Text)
	}
	fmt.Fprintln(&r, strings.Repeat("y", 2*RingSize))
	if got := r.Tail(0); len(got) != 1 {
		t.Errorf("%d lines after one too long for the ring", len(got))
	}
}

func TestFollow(t *testing.T) {
	var r Ring
	fmt.Fprint(&r, "old\nlast\n")
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan string)
	ended := make(chan error)
	go func() {
		ended <- r.Follow(ctx, 1, func(l Line) error { seen <- l.Text; return nil })
	}()
	for i, want := range []string{"last", "new 1", "new 2"} {
		if i > 0 {
			fmt.Fprintln(&r, want)
		}
		if got := <-seen; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	full := errors.New("reader is gone")
	if err := r.Follow(t.Context(), 0, func(Line) error { return full }); err != full {
		t.Error(err)
	}
}

func TestFilesAreBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slipway")
	logs := Open(dir)
	line := []byte(strings.Repeat("x", 1000) + "\n")
	for range 5 * FileSize / 1000 {
		logs.Writer("etcd").Write(line)
	}
	var total int64
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, _ := e.Info()
		total += info.Size()
	}
	if len(entries) != 2 || total > 2*FileSize+2000 {
		t.Errorf("%v, %d bytes", entries, total)
	}

	logs.Close()
	logs.Writer("etcd").Write([]byte("after\n"))
	text, _ := os.ReadFile(filepath.Join(dir, "etcd.log"))
	if !bytes.HasSuffix(text, line) || bytes.Contains(text, []byte("after")) {
		t.Errorf("ends in %q", text[len(text)-20:])
	}

	again := Open(dir)
	again.Writer("etcd").Write([]byte("appended\n"))
	more, _ := os.ReadFile(filepath.Join(dir, "etcd.log"))
	if !bytes.HasPrefix(more, text) || !bytes.HasSuffix(more, []byte("Z appended\n")) {
		t.Error("the file of an earlier run was not continued")
	}
}

func TestRingOfAnUnknownUnit(t *testing.T) {
	logs := Open("")
	logs.Writer("kubelet")
	logs.Writer("etcd")
	_, err := logs.Ring("ectd")
	if err == nil || err.Error() != `no log of unit "ectd"; there are ["etcd" "kubelet"]` {
		t.Error(err)
	}
}

func TestConsole(t *testing.T) {
	var out bytes.Buffer
	logs := Open("")
	for i := range 9 {
		fmt.Fprintf(logs.Writer("kubelet"), "line %d\n", i)
	}
	log := slog.New(NewConsole(&out, logs, func() time.Duration { return 12345 * time.Millisecond }))
	log.Info("hello", "kernel", "6.12")
	log.With("unit", "etcd").Info("ready")
	log.Error("backoff", "unit", "kubelet", "err", errors.New("ended: exit status 1"))
	log.Debug("noise")
	want := `[   12.345] init: hello kernel=6.12
[   12.345] etcd: ready
[   12.345] kubelet: backoff err="ended: exit status 1"
            | line 4
            | line 5
            | line 6
            | line 7
            | line 8
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	ring, err := logs.Ring("init")
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(ring.Tail(0)); len(got) != 3 {
		t.Errorf("PID 1's own log: %q", got)
	}
}
