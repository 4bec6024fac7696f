package apiclient

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"slipway/controlplane/apiclient/apitest"
)

// answers is an API server of a few fixed answers.
func answers(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "who?", http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/object":
		io.WriteString(w, `{"kind":"Node"}`)
	case "/refused":
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"kind":"Status","message":"nodes is forbidden: no"}`)
	case "/garbage":
		io.WriteString(w, `<html>`)
	case "/list":
		if !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadataList") {
			w.WriteHeader(http.StatusNotAcceptable)
		}
		io.WriteString(w, `{"items":[{},{}]}`)
	case "/metrics":
		io.WriteString(w, strings.Repeat("a 1\n", 1000)+"b{c=\"d\"} 1\n")
	case "/put":
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPut || r.Header.Get("Content-Type") != asJSON || string(body) != `{"a":1}` {
			w.WriteHeader(http.StatusConflict)
		}
	case "/gone":
		w.WriteHeader(http.StatusGone)
	case "/patch":
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPatch || r.Header.Get("Content-Type") != Apply || string(body) != "a: 1" {
			w.WriteHeader(http.StatusBadRequest)
		}
	default:
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"no such object"}`)
	}
}

func open(t *testing.T) *Client {
	t.Helper()
	client, err := Open(Access(apitest.Serve(t, http.HandlerFunc(answers))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func TestGet(t *testing.T) {
	var object struct{ Kind string }
	if err := open(t).Get(t.Context(), "/object", &object); err != nil || object.Kind != "Node" {
		t.Errorf("Get = %v, %v", object, err)
	}
}

func TestPatch(t *testing.T) {
	if err := open(t).Patch(t.Context(), "/patch", Apply, []byte("a: 1")); err != nil {
		t.Error(err)
	}
}

func TestPut(t *testing.T) {
	client := open(t)
	if err := client.Put(t.Context(), "/put", []byte(`{"a":1}`)); err != nil {
		t.Error(err)
	}
	if err := client.Put(t.Context(), "/put", []byte(`{"a":2}`)); !errors.Is(err, ErrConflict) {
		t.Errorf("Put = %v, want a conflict", err)
	}
}

func TestMetadata(t *testing.T) {
	client := open(t)
	var list struct{ Items []any }
	if err := client.Metadata(t.Context(), "/list", &list); err != nil || len(list.Items) != 2 {
		t.Errorf("Metadata = %v, %v", list, err)
	}
	if err := client.Metadata(t.Context(), "/gone", &list); !errors.Is(err, ErrGone) {
		t.Errorf("Metadata = %v, want gone", err)
	}
}

func TestFind(t *testing.T) {
	client := open(t)
	for part, want := range map[string]bool{`c="d"`: true, `c="e"`: false} {
		if found, err := client.Find(t.Context(), "/metrics", part); err != nil || found != want {
			t.Errorf("Find(%s) = %v, %v", part, found, err)
		}
	}
	if _, err := client.Find(t.Context(), "/none", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Find = %v, want not found", err)
	}
}

func TestRefusals(t *testing.T) {
	client := open(t)
	for path, want := range map[string]string{
		"/refused": "GET /refused: 403: nodes is forbidden: no",
		"/garbage": "GET /garbage: read answer: invalid character",
		"/none":    "GET /none: not found: no such object",
	} {
		var value any
		err := client.Get(t.Context(), path, &value)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Get(%s) = %v, want %s", path, err, want)
		}
		if errors.Is(err, ErrNotFound) != (path == "/none") {
			t.Errorf("Get(%s): ErrNotFound is wrong in %v", path, err)
		}
	}
}

// TestOtherServer: a server that another CA signed for gets no request.
func TestOtherServer(t *testing.T) {
	access := Access(apitest.Serve(t, http.HandlerFunc(answers)))
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the stranger got a request")
	}))
	defer other.Close()
	access.Server = other.URL
	client, err := Open(access)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Get(t.Context(), "/object", nil); err == nil {
		t.Error("Get succeeded")
	}
}

func TestOpenErrors(t *testing.T) {
	good := Access(apitest.Serve(t, http.HandlerFunc(answers)))
	for want, spoil := range map[string]func(*Access){
		"read CA":                 func(a *Access) { a.CAFile = "/nowhere" },
		"no certificate in":       func(a *Access) { a.CAFile = a.KeyFile },
		"read client certificate": func(a *Access) { a.CertFile = "/nowhere" },
	} {
		access := good
		spoil(&access)
		if _, err := Open(access); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open = %v, want %s", err, want)
		}
	}
}
