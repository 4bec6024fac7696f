package tftp

import (
	"errors"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	s := &Server{files: map[string][]byte{"snponly.efi": []byte("loader")}}
	cases := map[string]bool{
		"snponly.efi":              true,
		"/snponly.efi":             true,
		`\snponly.efi`:             true,
		"snponly.efi\xff":          true, // the end mark of the options
		"snponly.efi\xff\x00x":     true,
		"":                         false,
		"/":                        false,
		"SNPONLY.EFI":              false,
		"../snponly.efi":           false,
		"x/../snponly.efi":         false,
		"snponly.efi/":             false,
		"snponly.efi\x00":          false,
		"/etc/passwd":              false,
		strings.Repeat("/", 10000): false,
	}
	for name, want := range cases {
		data, err := s.find(name)
		if got := err == nil; got != want || want && string(data) != "loader" {
			t.Errorf("%q: %q, %v", name, data, err)
		}
	}
}

// FuzzTFTPName: no name but a key of the table, in firmware's spellings, finds anything.
func FuzzTFTPName(f *testing.F) {
	s := &Server{files: map[string][]byte{"snponly.efi": {1}, "undionly.kpxe": {2}}}
	for _, name := range []string{"snponly.efi", "/undionly.kpxe\xff", "../../etc/passwd", `..\snponly.efi`} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		_, err := s.find(name)
		plain, _, _ := strings.Cut(strings.TrimLeft(name, `/\`), "\xff")
		if err == nil && plain != "snponly.efi" && plain != "undionly.kpxe" {
			t.Errorf("%q finds a file", name)
		}
		if err != nil && !errors.Is(err, errUnknown) {
			t.Errorf("%q: %v", name, err)
		}
		if shown := display(name); len(shown) > 4*maxName+2 || strings.ContainsAny(shown, "\n\x1b") {
			t.Errorf("%q is logged as %s", name, shown)
		}
	})
}
