package debian

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParagraphs(t *testing.T) {
	tests := []struct {
		name, text string
		want       []Paragraph
		err        string
	}{
		{"empty", "", nil, ""},
		{"two", "Package: a\nVersion: 1\n\n\nPackage: b\n", []Paragraph{{"package": "a", "version": "1"}, {"package": "b"}}, ""},
		{"folded", "SHA256:\n a 1 x\n b 2 y\n", []Paragraph{{"sha256": "\na 1 x\nb 2 y"}}, ""},
		{"comment", "# hello\nTypes: deb\n# within\nURIs: http://x\n", []Paragraph{{"types": "deb", "uris": "http://x"}}, ""},
		{"carriage returns", "A: 1\r\n\r\nB: 2\r\n", []Paragraph{{"a": "1"}, {"b": "2"}}, ""},
		{"no colon", "Package: a\nnonsense\n", nil, `line 2: "nonsense" is not "Name: value"`},
		{"continues nothing", " x\n", nil, `line 1: " x" continues no field`},
		{"twice", "A: 1\nA: 2\n", nil, `line 2: field "a" appears twice`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []Paragraph
			var gotErr error
			for p, err := range Paragraphs(strings.NewReader(tt.text)) {
				if gotErr = err; err == nil {
					got = append(got, p)
				}
			}
			checkError(t, gotErr, tt.err)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("paragraphs (-want +got):\n%s", diff)
			}
		})
	}
}

// checkError fails unless err contains want; an empty want means no error.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("unexpected error: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Fatalf("error is %v, want one with %q", err, want)
	}
}

func TestHostSources(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"sources.list": "# old style\ndeb [arch=amd64 signed-by=/k.gpg] http://a.example/debian/ bookworm main contrib # why\n" +
			"deb-src http://a.example/debian bookworm main\ndeb cdrom:[Disc]/ bookworm main\n",
		"sources.list.d/x.sources": "Types: deb deb-src\nURIs: http://b.example/debian https://c.example/d\nSuites: bookworm bookworm-updates\nComponents: main\n\n" +
			"Types: deb\nURIs: http://off.example\nSuites: s\nComponents: main\nEnabled: no\n",
		"sources.list.d/x.save": "deb http://never.example/ x y\n",
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := HostSources(dir)
	if err != nil {
		t.Fatal(err)
	}
	main := []string{"main"}
	want := []Source{
		{"http://a.example/debian", "bookworm", []string{"main", "contrib"}},
		{"http://b.example/debian", "bookworm", main}, {"http://b.example/debian", "bookworm-updates", main},
		{"https://c.example/d", "bookworm", main}, {"https://c.example/d", "bookworm-updates", main},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestParseOneLineRefusesOpenBracket(t *testing.T) {
	_, err := ParseOneLine(strings.NewReader("deb [arch=amd64 http://x y main\n"))
	checkError(t, err, "bracket is not closed")
}

func TestParseRelease(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	tests := []struct {
		name, text, err string
	}{
		{"good", "Codename: bookworm\nValid-Until: Tue, 24 Nov 2026 22:33:39 UTC\nSHA256:\n " + sum + " 7 main/x\n", ""},
		{"expired", "Codename: bookworm\nValid-Until: Tue, 17 Nov 2026 22:33:39 UTC\n", "it expired at 2026-11-17T22:33:39Z"},
		{"bad date", "Valid-Until: soon\n", "Valid-Until"},
		{"bad hash", "SHA256:\n zz 7 main/x\n", "is not \"hash size path\""},
		{"bad size", "SHA256:\n " + sum + " -7 main/x\n", "has a bad size"},
		{"empty", "\n", "it is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rel, err := ParseRelease([]byte(tt.text), time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC))
			checkError(t, err, tt.err)
			if err == nil && (rel.Codename != "bookworm" || rel.Files["main/x"] != Sum{7, sum}) {
				t.Errorf("release is %+v", rel)
			}
		})
	}
}

func TestLockRoundTrip(t *testing.T) {
	sum := Sum{Size: 7, SHA256: strings.Repeat("0f", 32)}
	lock := Lock{
		{Name: "nftables", Version: "1.0.6-2", Arch: "amd64", Path: "pool/main/n/nftables_1.0.6-2_amd64.deb", Sum: sum},
		{Name: "ipxe", Version: "1:1.0", Arch: "all", Path: "pool/main/i/ipxe_1.0_all.deb", Sum: sum},
	}
	got, err := ParseLock(strings.NewReader(string(lock.Encode())))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Lock{lock[1], lock[0]}, got); diff != "" {
		t.Errorf("lock (-want +got):\n%s", diff)
	}
	if _, err := got.Find("nft"); err == nil || !strings.Contains(err.Error(), "slipway image lock") {
		t.Errorf("Find of an unknown package: %v", err)
	}
}

func TestParseLockRefuses(t *testing.T) {
	sum := strings.Repeat("0f", 32)
	for text, want := range map[string]string{
		"a 1 amd64":                             "line 1: 3 words",
		"a 1 amd64 x " + sum + " pool/a":        `size "x"`,
		"a 1 amd64 1 xyz pool/a":                "is not a SHA-256",
		"a 1 amd64 1 " + sum + " ../etc/passwd": "is not a path below an archive",
		"a 1 amd64 1 " + sum + " http://evil/x": "is not a path below an archive",
		"a 1 amd64 1 " + sum + " pool/a\na 2 amd64 1 " + sum + " pool/a_2.deb": "line 2: package a is pinned twice",
	} {
		_, err := ParseLock(strings.NewReader(text))
		checkError(t, err, want)
	}
}

func FuzzParagraphs(f *testing.F) {
	f.Add("Package: a\n b\n\n#c\nD:")
	f.Fuzz(func(t *testing.T, text string) {
		for p, err := range Paragraphs(strings.NewReader(text)) {
			if err == nil && len(p) == 0 {
				t.Error("a paragraph without fields")
			}
		}
	})
}

func FuzzParseRelease(f *testing.F) {
	f.Add("Codename: x\nSHA256:\n " + strings.Repeat("ab", 32) + " 7 main/x\n")
	f.Fuzz(func(t *testing.T, text string) {
		rel, err := ParseRelease([]byte(text), time.Unix(0, 0))
		if err != nil {
			return
		}
		for name, sum := range rel.Files {
			if !isSHA256(sum.SHA256) || sum.Size < 0 || name == "" {
				t.Errorf("file %q has sum %+v", name, sum)
			}
		}
	})
}

func FuzzParseLock(f *testing.F) {
	f.Add("a 1 amd64 1 " + strings.Repeat("0f", 32) + " pool/a")
	f.Fuzz(func(t *testing.T, text string) {
		lock, err := ParseLock(strings.NewReader(text))
		if err != nil {
			return
		}
		if _, err := ParseLock(strings.NewReader(string(lock.Encode()))); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
