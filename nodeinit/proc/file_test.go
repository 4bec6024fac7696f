package proc

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
)

func TestWriteFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deep/er/key.pem")
	write := func(mode os.FileMode, data string) os.FileInfo {
		t.Helper()
		if err := WriteFiles([]File{{Path: path, Mode: mode, Data: []byte(data)}}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		if string(got) != data || info.Mode() != mode {
			t.Errorf("%s %q, want %s %q", info.Mode(), got, mode, data)
		}
		return info
	}
	first := write(0o600, "one")
	if again := write(0o600, "one"); !os.SameFile(first, again) {
		t.Error("an unchanged file was written again")
	}
	write(0o644, "one")
	write(0o644, "two")
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}

	err := WriteFiles([]File{{Path: path + "/x"}, {Path: filepath.Join(dir, "ok"), Mode: 0o600}})
	if err == nil || !strings.HasPrefix(err.Error(), "write "+path+"/x: ") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ok")); err != nil {
		t.Error("one bad file kept the next from being written")
	}
}

func TestProbes(t *testing.T) {
	dir := t.TempDir()
	healthy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			http.Error(w, "etcd not ready", http.StatusInternalServerError)
		}
	})
	plain, secure := httptest.NewServer(healthy), httptest.NewTLSServer(healthy)
	defer plain.Close()
	defer secure.Close()
	ca := filepath.Join(dir, "ca.pem")
	writePEM(t, ca, secure.Certificate().Raw)
	junk := filepath.Join(dir, "junk")
	os.WriteFile(junk, []byte("junk"), 0o600)
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	for _, test := range []struct {
		name  string
		probe Probe
		want  string // part of the error; empty: success
	}{
		{"http", HTTPProbe{plain.URL + "/healthz"}, ""},
		{"http 500", HTTPProbe{plain.URL + "/x"}, `500 Internal Server Error: "etcd not ready\n"`},
		{"nobody listens", HTTPProbe{"http://127.0.0.1:1/"}, "connection refused"},
		{"https", HTTPSProbe{URL: secure.URL + "/healthz", CAFile: ca}, ""},
		{"no CA yet", HTTPSProbe{URL: secure.URL, CAFile: ca + "x"}, "read CA"},
		{"CA is junk", HTTPSProbe{URL: secure.URL, CAFile: junk}, "no certificate in"},
		{"no client certificate yet", HTTPSProbe{URL: secure.URL, CAFile: ca, CertFile: ca + "x"}, "load client certificate"},
		{"socket", UnixProbe{socket}, ""},
		{"no socket", UnixProbe{socket + "x"}, "no such file"},
		{"tcp", TCPProbe{plain.Listener.Addr().String()}, ""},
		{"no tcp", TCPProbe{"127.0.0.1:1"}, "connection refused"},
		{"file", FileProbe{junk}, ""},
		{"no file", FileProbe{junk + "x"}, "file does not exist"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.probe.Probe(context.Background())
			if (err == nil) != (test.want == "") || !strings.Contains(text(err), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestSessionKeepsItsConnection: one handshake, until the server goes away.
func TestSessionKeepsItsConnection(t *testing.T) {
	var handshakes, asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			handshakes.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	probe, end := HTTPSProbe{URL: server.URL, CAFile: ca}.session()
	defer end()
	if err := probe(t.Context()); err == nil || !strings.Contains(err.Error(), "read CA") {
		t.Errorf("before there is a CA: %v", err)
	}
	writePEM(t, ca, server.Certificate().Raw)
	for i := range 5 {
		if err := probe(t.Context()); (err == nil) != (i >= 2) {
			t.Errorf("probe %d: %v", i, err)
		}
	}
	if n := handshakes.Load(); n != 1 {
		t.Errorf("%d handshakes", n)
	}
	server.CloseClientConnections()
	if err := probe(t.Context()); err != nil {
		if err := probe(t.Context()); err != nil {
			t.Errorf("after the connection was lost: %v", err)
		}
	}
}

func writePEM(t *testing.T, path string, der []byte) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
