package debian

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
)

// member returns one ar member.
func member(name string, data []byte) []byte {
	b := fmt.Appendf(nil, "%-16s%-12s%-6s%-6s%-8s%-10d`\n", name, "0", "0", "0", "100644", len(data))
	b = append(b, data...)
	if len(data)%2 == 1 {
		b = append(b, '\n')
	}
	return b
}

// makeDeb returns a package that holds the given files, packed with xz.
func makeDeb(t testing.TB, files ...tar.Header) []byte {
	t.Helper()
	var packed bytes.Buffer
	x, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(x)
	for _, h := range files {
		content := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			content = []byte("content of " + h.Name)
		}
		h.Size, h.Mode = int64(len(content)), 0o755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	deb := append([]byte("!<arch>\n"), member("debian-binary", []byte("2.0\n"))...)
	deb = append(deb, member("control.tar.xz/", []byte("odd"))...)
	return append(deb, member("data.tar.xz", packed.Bytes())...)
}

func TestWalk(t *testing.T) {
	deb := makeDeb(t, tar.Header{Typeflag: tar.TypeDir, Name: "./"}, tar.Header{Typeflag: tar.TypeDir, Name: "./usr/"},
		tar.Header{Typeflag: tar.TypeReg, Name: "./usr/nft"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "./usr/link", Linkname: "nft"})
	path := filepath.Join(t.TempDir(), "a.deb")
	if err := os.WriteFile(path, deb, 0o644); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := Walk(path, func(h *tar.Header, r io.Reader) error {
		data, err := io.ReadAll(r)
		got = append(got, fmt.Sprintf("%c %s %s %s", h.Typeflag, h.Name, h.Linkname, data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"5 usr  ", "0 usr/nft  content of ./usr/nft", "2 usr/link nft "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestWalkRefuses(t *testing.T) {
	good := makeDeb(t)
	bad := bytes.Replace(good, []byte("data.tar.xz"), []byte("data.tar.zz"), 1)
	tests := map[string][]byte{
		"it is not a Debian package":   []byte("hello, world"),
		"find data.tar: EOF":           good[:8+60+4+60+4],
		"bad ar member header":         bytes.Replace(good, []byte("`\n"), []byte("xx"), 1),
		"unknown compression":          bad,
		"bad ar member size":           bytes.Replace(good, []byte("4         `"), []byte("-4        `"), 1),
		"leaves the package":           makeDeb(t, tar.Header{Typeflag: tar.TypeReg, Name: "../etc/passwd"}),
		"entry \"/etc/passwd\" leaves": makeDeb(t, tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd"}),
	}
	for want, data := range tests {
		err := walk(bytes.NewReader(data), func(*tar.Header, io.Reader) error { return nil })
		checkError(t, err, want)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(makeDeb(f, tar.Header{Typeflag: tar.TypeReg, Name: "./a"}))
	f.Add([]byte("!<arch>\n" + string(member("data.tar", make([]byte, 1024)))))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = walk(bytes.NewReader(data), func(h *tar.Header, _ io.Reader) error {
			if err := checkPath(h.Name); err != nil && !bytes.ContainsAny([]byte(h.Name), ":?#") {
				t.Errorf("entry %q: %v", h.Name, err)
			}
			return nil
		})
	})
}
