package httpd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"slipway/bootsvc/refusal"
	"slipway/bootsvc/timeline"
)

const kernel = "the kernel, all of it"

var machine = net.HardwareAddr{2, 0, 0, 0, 0, 1}

// stand is a server under test with what it told.
type stand struct {
	*Server
	file string
	mu   sync.Mutex
	told []string
	fail error // of the script
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{file: filepath.Join(t.TempDir(), "kernel")}
	if err := os.WriteFile(s.file, []byte(kernel), 0o644); err != nil {
		t.Fatal(err)
	}
	registry, log := prometheus.NewRegistry(), slog.New(slog.NewTextHandler(io.Discard, nil))
	clock := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { clock = clock.Add(time.Second); return clock } // each look at it takes a second
	server, err := New(netip.AddrPort{}, map[string]File{"/image/kernel": {Path: s.file, SHA256: "00ff"}}, Seams{
		Script: func(_ context.Context, mac net.HardwareAddr) ([]byte, error) {
			return []byte("#!ipxe for " + mac.String()), s.fail
		},
		MAC: func(a netip.Addr) net.HardwareAddr {
			if a == netip.MustParseAddr("192.0.2.1") { // httptest's client
				return machine
			}
			return nil
		},
		Observe:  s.observe,
		Refusals: refusal.New(log, registry, time.Now), Metrics: registry, Log: log, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = server
	return s
}

func (s *stand) observe(_ context.Context, e timeline.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, strings.TrimSpace(strings.TrimPrefix(e.Name+" ", "http ")+e.MAC.String()+" "+e.Detail))
}

func (s *stand) ask(method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// TestTimeline: first and last byte of each artifact, by the machine that the lease names.
func TestTimeline(t *testing.T) {
	cases := []struct {
		name, method, path string
		headers            []string
		want               []string
	}{
		{"kernel", "GET", "/image/kernel", nil, []string{
			"02:00:00:00:00:01 /image/kernel asked for", "02:00:00:00:00:01 /image/kernel sent, 21 bytes in 2s"}},
		{"part", "GET", "/image/kernel", []string{"Range", "bytes=4-9"}, []string{
			"02:00:00:00:00:01 /image/kernel asked for", "02:00:00:00:00:01 /image/kernel bytes=4-9 sent, 6 bytes in 2s"}},
		{"part, for a running system", "GET", "/image/kernel", []string{"Range", "bytes=4-9", "User-Agent", "Go-http-client/1.1"}, []string{
			"download 02:00:00:00:00:01 /image/kernel asked for", "download 02:00:00:00:00:01 /image/kernel bytes=4-9 sent, 6 bytes in 2s"}},
		{"script", "GET", "/boot.ipxe", nil, []string{"02:00:00:00:00:01 /boot.ipxe sent, 28 bytes in 1s"}},
		// Whose timeline it is, the lease says, and not the one who asks.
		{"another's script", "GET", "/boot.ipxe?mac=02-00-00-00-00-09", nil, []string{"02:00:00:00:00:01 /boot.ipxe sent, 28 bytes in 1s"}},
		{"only the head", "HEAD", "/image/kernel", nil, nil},
		{"nothing new", "GET", "/image/kernel", []string{"If-None-Match", `"00ff"`}, nil},
		{"nothing there", "GET", "/nothing", nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newStand(t)
			s.ask(c.method, c.path, c.headers...)
			if diff := cmp.Diff(c.want, s.told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScript(t *testing.T) {
	s := newStand(t)
	for path, want := range map[string]string{
		"/boot.ipxe":                       "#!ipxe for 02:00:00:00:00:01",
		"/boot.ipxe?mac=02-00-00-00-00-09": "#!ipxe for 02:00:00:00:00:09",
		"/boot.ipxe?mac=02:00:00:00:00:09": "#!ipxe for 02:00:00:00:00:09",
	} {
		if got := s.ask("GET", path).Body.String(); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	s.fail = errors.New("no CA")
	if w := s.ask("GET", "/boot.ipxe"); w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "CA") {
		t.Errorf("a script that fails is %d, %q", w.Code, w.Body)
	}
}

// TestChangedOnDisk: bytes that are not the ETag's are not served.
func TestChangedOnDisk(t *testing.T) {
	changes := map[string]func(file string) error{
		"longer":  func(file string) error { return os.WriteFile(file, []byte(kernel+"!"), 0o644) },
		"touched": func(file string) error { return os.Chtimes(file, time.Time{}, time.Unix(1, 0)) },
		"gone":    os.Remove,
	}
	for name, change := range changes {
		s := newStand(t)
		if err := change(s.file); err != nil {
			t.Fatal(err)
		}
		if w := s.ask("GET", "/image/kernel"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d, %q", name, w.Code, w.Body)
		}
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := New(netip.AddrPort{}, map[string]File{"/image/kernel": {Path: "/nonexistent"}}, Seams{}); err == nil {
		t.Error("a table with a missing file is accepted")
	}
}

// TestPerSource: one address may open so many connections, and more when it closed some.
func TestPerSource(t *testing.T) {
	s := newStand(t)
	l := &limiter{server: s.Server, open: map[netip.Addr]int{}}
	greedy, modest := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for i := range maxPerSource {
		if !l.enter(greedy) {
			t.Fatalf("connection %d is refused", i)
		}
	}
	if l.enter(greedy) {
		t.Error("one too many is accepted")
	}
	if !l.enter(modest) {
		t.Error("another address is refused")
	}
	l.leave(greedy)
	if !l.enter(greedy) {
		t.Error("a place that was given back is not free")
	}
	l.leave(modest)
	if _, kept := l.open[modest]; kept {
		t.Error("an address without connections is remembered")
	}
}

// TestRun starts and stops the server, and breaks connections off meanwhile.
func TestRun(t *testing.T) {
	s := newStand(t)
	s.listen = freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	for _, nonsense := range []string{"", "\x16\x03\x01\x02\x00\x01", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"} {
		conn, err := net.Dial("tcp", s.listen.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, nonsense); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	answer, err := http.Get("http://" + s.listen.String() + "/image/kernel")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !bytes.Equal(body, []byte(kernel)) || !slices.Equal(answer.Header["Etag"], []string{`"00ff"`}) {
		t.Errorf("got %q, %v, %v", body, answer.Header, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}
