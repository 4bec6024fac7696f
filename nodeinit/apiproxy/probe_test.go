package apiproxy

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// tlsServer is an API server as the prober sees it, and the file of its CA.
func tlsServer(t *testing.T, ready *atomic.Bool) (addr, ca string) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || !ready.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	ca = filepath.Join(t.TempDir(), "ca.crt")
	writeCA(t, ca, server.Certificate().Raw)
	return strings.TrimPrefix(server.URL, "https://"), ca
}

func writeCA(t *testing.T, path string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProbe(t *testing.T) {
	var ready atomic.Bool
	addr, ca := tlsServer(t, &ready)
	ask, end := NewProber(ca, "/readyz", time.Minute)(addr)
	defer end()
	expect(t, "not ready", ask, NotReady)
	ready.Store(true)
	expect(t, "ready", ask, OK)
	if err := os.WriteFile(ca, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, "nothing to check it against", ask, Silent)
}

func TestProbeWithoutAnswer(t *testing.T) {
	_, ca := tlsServer(t, new(atomic.Bool))
	silent, gone := silentListener(t), silentListener(t)
	_ = gone.Close()
	ask, end := NewProber(ca, "/readyz", 20*time.Millisecond)(silent.Addr().String())
	defer end()
	expect(t, "it takes the connection and says nothing", ask, Slow)
	ask, end = NewProber(ca, "/readyz", time.Minute)(gone.Addr().String())
	defer end()
	expect(t, "nothing listens", ask, Refused)
}

func expect(t *testing.T, what string, ask func(context.Context) Result, want Result) {
	t.Helper()
	if got := ask(t.Context()); got != want {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}

// silentListener takes connections and never says a word.
func silentListener(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// TestHungServer: a stopped process, whose kernel still takes connections, is
// left for another one.
func TestHungServer(t *testing.T) {
	var ready atomic.Bool
	ready.Store(true)
	addr, ca := tlsServer(t, &ready)
	hung := silentListener(t)
	l := &lab{t: t}
	file, err := File{Own: hung.Addr().String(), Others: []string{addr}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.file = file.Data
	placed := make(chan struct{})
	prober := NewProber(ca, "/readyz", 100*time.Millisecond)
	l.run(func(addr string) (func(context.Context) Result, func()) {
		ask, end := prober(addr)
		return func(ctx context.Context) Result { <-placed; return ask(ctx) }, end
	})

	conn, err := net.Dial("tcp4", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	upstream, err := hung.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	close(placed)
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // of a test that fails
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
		t.Fatalf("the connection to the hung server is not cut: %v", err)
	}
	ask, end := NewProber(ca, "/readyz", time.Minute)(l.addr) // the certificate is for any port
	defer end()
	expect(t, "the other server, through the balancer", ask, OK)
}
