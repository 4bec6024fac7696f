package tftp

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
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

func TestSlots(t *testing.T) {
	s := slots{by: map[netip.Addr]int{}}
	source := netip.MustParseAddr("10.0.0.1")
	entered := 0
	for range 2 * maxPerSource {
		if s.enter(source) {
			entered++
		}
	}
	if entered != maxPerSource {
		t.Errorf("one address has %d slots, want %d", entered, maxPerSource)
	}
	for range 2 * maxTransfers {
		source = source.Next()
		if s.enter(source) {
			entered++
		}
	}
	if entered != maxTransfers {
		t.Errorf("all have %d slots, want %d", entered, maxTransfers)
	}
	s.leave(netip.MustParseAddr("10.0.0.1"))
	if !s.enter(source) {
		t.Error("a slot that was given back is not free")
	}
}

// TestStopped: a transfer ends with the server, wherever it is.
func TestStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &file{bytes.NewReader([]byte("loader")), ctx}
	if n, err := f.Read(make([]byte, 2)); n != 2 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	cancel()
	if n, err := f.Read(make([]byte, 2)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("read %d, %v", n, err)
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
