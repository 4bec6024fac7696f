package debian

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
)

// archive is a small signed Debian archive served over HTTP.
type archive struct {
	*httptest.Server
	files map[string][]byte
	key   *openpgp.Entity
}

// quickKeys avoids RSA, whose keys take long to make.
func quickKeys() *packet.Config { return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA} }

func newArchive(t *testing.T) *archive {
	t.Helper()
	key, err := openpgp.NewEntity("archive", "", "archive@example", quickKeys())
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{files: map[string][]byte{}, key: key}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := a.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(data)
	}))
	t.Cleanup(a.Close)
	return a
}

// add publishes a suite whose only index is the given text.
func (a *archive) add(t *testing.T, suite, index string) {
	t.Helper()
	var packed bytes.Buffer
	x, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Write([]byte(index)); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	const name = "main/binary-amd64/Packages.xz"
	a.files["/dists/"+suite+"/"+name] = packed.Bytes()
	release := fmt.Sprintf("Codename: %s\nSHA256:\n %x %d %s\n", suite, sha256.Sum256(packed.Bytes()), packed.Len(), name)
	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, a.key.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(release)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	a.files["/dists/"+suite+"/InRelease"] = signed.Bytes()
}

// stanza describes a package with the given content and publishes it.
func (a *archive) stanza(name, version, content string) string {
	path := "pool/" + name + "_" + version + ".deb"
	a.files["/"+path] = []byte(content)
	return fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: %s\nSize: %d\nSHA256: %x\n\n",
		name, version, path, len(content), sha256.Sum256([]byte(content)))
}

func (a *archive) request(names ...string) Request {
	return Request{Sources: MirrorSources([]string{a.URL}, []string{"stable", "stable-security"}),
		Suites: []string{"stable", "stable-security"}, Arch: "amd64", Names: names,
		Keys: openpgp.EntityList{a.key}, Now: time.Now(), Client: a.Client()}
}

func TestUpdatePinsTheNewest(t *testing.T) {
	a := newArchive(t)
	a.add(t, "stable", a.stanza("nft", "1.9", "old")+a.stanza("libc", "2", "c")+a.stanza("other", "1", "x"))
	a.add(t, "stable-security", a.stanza("nft", "1.10~deb1", "new"))
	lock, err := Update(t.Context(), a.request("nft", "libc"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range lock {
		got = append(got, p.String())
	}
	if diff := cmp.Diff([]string{"nft 1.10~deb1", "libc 2"}, got); diff != "" {
		t.Errorf("lock (-want +got):\n%s", diff)
	}
}

func TestUpdateRefuses(t *testing.T) {
	stranger, err := openpgp.NewEntity("stranger", "", "stranger@example", quickKeys())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, want string
		change     func(a *archive, req *Request)
	}{
		{"unknown key", "check signature against the archive keyring", func(_ *archive, r *Request) { r.Keys = openpgp.EntityList{stranger} }},
		{"unsigned", "it carries no OpenPGP signature", func(a *archive, _ *Request) { a.files["/dists/stable/InRelease"] = []byte("Codename: stable\n") }},
		{"changed release", "check signature", func(a *archive, _ *Request) {
			a.files["/dists/stable/InRelease"] = bytes.Replace(a.files["/dists/stable/InRelease"], []byte("Codename: stable"), []byte("Codename: stablE"), 1)
		}},
		{"changed index", "SHA-256 is", func(a *archive, _ *Request) { a.files["/dists/stable/main/binary-amd64/Packages.xz"][9] ^= 1 }},
		{"other suite", `InRelease is of "stable-security"`, func(a *archive, _ *Request) {
			a.files["/dists/stable/InRelease"] = a.files["/dists/stable-security/InRelease"]
		}},
		{"unknown package", "package gone (amd64) is in none of the suites", func(_ *archive, r *Request) { r.Names = append(r.Names, "gone") }},
		{"no source", "name an archive with --mirror", func(_ *archive, r *Request) { r.Sources = nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(t)
			a.add(t, "stable", a.stanza("nft", "1", "x"))
			a.add(t, "stable-security", "")
			req := a.request("nft")
			tt.change(a, &req)
			_, err := Update(t.Context(), req)
			checkError(t, err, tt.want)
		})
	}
}

func TestFetch(t *testing.T) {
	a := newArchive(t)
	a.add(t, "stable", a.stanza("nft", "1", "the package"))
	a.add(t, "stable-security", "")
	lock, err := Update(t.Context(), a.request("nft"))
	if err != nil {
		t.Fatal(err)
	}
	other := newArchive(t) // has nothing: the first mirror's 404 is no failure
	store := Store{Dir: filepath.Join(t.TempDir(), "cache"), Mirrors: []string{other.URL, a.URL}, Client: a.Client()}
	path, err := store.Fetch(t.Context(), lock[0])
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "the package" {
		t.Errorf("fetched %q, %v", data, err)
	}
	a.Close() // from here on only the cache answers
	if _, err := store.Fetch(t.Context(), lock[0]); err != nil {
		t.Errorf("fetch from the cache: %v", err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = store.Fetch(t.Context(), lock[0])
	checkError(t, err, "fetch package nft 1")
}

func TestFetchRefuses(t *testing.T) {
	a := newArchive(t)
	a.add(t, "stable", a.stanza("nft", "1", "the package"))
	a.add(t, "stable-security", "")
	lock, err := Update(t.Context(), a.request("nft"))
	if err != nil {
		t.Fatal(err)
	}
	store := Store{Dir: t.TempDir(), Mirrors: []string{a.URL}, Client: a.Client()}
	a.files["/pool/nft_1.deb"] = []byte("another one")
	_, err = store.Fetch(t.Context(), lock[0])
	checkError(t, err, "the lock wants 11 bytes with")
	delete(a.files, "/pool/nft_1.deb")
	_, err = store.Fetch(t.Context(), lock[0])
	checkError(t, err, "the archive no longer has this version")
	if !strings.Contains(err.Error(), "slipway image lock") || !strings.Contains(err.Error(), "nft 1") {
		t.Errorf("the error names neither package nor command: %v", err)
	}
	store.Mirrors = nil
	_, err = store.Fetch(t.Context(), lock[0])
	checkError(t, err, "no archive is known")
	if left, _ := filepath.Glob(filepath.Join(store.Dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
