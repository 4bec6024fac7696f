package proc

import (
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

// TestSocketProbe: the text of an answer that is not 200 is the error.
func TestSocketProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	probe := SocketProbe{Path: path, URL: "/ready"}
	if err := probe.Probe(t.Context()); err == nil {
		t.Error("nobody listens, and it is ready")
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	waiting := true
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if waiting || r.URL.Path != "/ready" {
			http.Error(w, "the others; start them", http.StatusServiceUnavailable)
		}
	})}
	go server.Serve(listener)
	defer server.Close()
	if err := probe.Probe(t.Context()); err == nil || err.Error() != "the others; start them" {
		t.Errorf("waiting: %v", err)
	}
	waiting = false
	if err := probe.Probe(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
}
