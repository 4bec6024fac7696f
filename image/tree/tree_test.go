package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
)

// sample is a tree with every kind of entry.
func sample(t *testing.T) *Tree {
	t.Helper()
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr := New("bin", "lib")
	err := errors.Join(
		tr.AddFile("/etc/passwd", 0o644, []byte("root\n")),
		tr.Add("lib/large.so", Entry{Mode: 0o755, Source: large}),
		tr.AddLink("bin/sh", "busybox"),
		tr.AddDir("tmp", os.ModeSticky|0o777),
		tr.AddDir("/", 0o755), tr.AddDir("bin", 0o755), tr.AddDir("etc", 0o755), // as packages list them
	)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestWriteTar(t *testing.T) {
	var b bytes.Buffer
	if err := sample(t).WriteTar(&b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%o %s %s %q %d:%d %d", h.Mode, h.Name, h.Linkname, data, h.Uid, h.Gid, h.ModTime.Unix()))
	}
	want := []string{
		`777 bin usr/bin "" 0:0 1`, `755 etc/  "" 0:0 1`, `644 etc/passwd  "root\n" 0:0 1`, `777 lib usr/lib "" 0:0 1`,
		`1777 tmp/  "" 0:0 1`, `755 usr/  "" 0:0 1`, `755 usr/bin/  "" 0:0 1`, `777 usr/bin/sh busybox "" 0:0 1`,
		`755 usr/lib/  "" 0:0 1`, `755 usr/lib/large.so  "from a file" 0:0 1`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tar (-want +got):\n%s", diff)
	}
}

func TestWriteCPIO(t *testing.T) {
	var b bytes.Buffer
	if err := sample(t).WriteCPIO(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 {
		t.Errorf("the archive has %d bytes, which 4 does not divide", b.Len())
	}
	var got []string
	for r := cpio.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%o %s %s%s", h.Mode, h.Name, h.Linkname, data))
	}
	want := []string{"120777 bin usr/bin", "40755 etc ", "100644 etc/passwd root\n", "120777 lib usr/lib", "41777 tmp ", "40755 usr ",
		"40755 usr/bin ", "120777 usr/bin/sh busybox", "40755 usr/lib ", "100755 usr/lib/large.so from a file"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cpio (-want +got):\n%s", diff)
	}
}

func TestAddRefuses(t *testing.T) {
	tr := sample(t)
	for want, err := range map[string]error{
		"add /etc/passwd: the path is already used":         tr.AddFile("etc/passwd", 0o644, nil),
		"add /usr/bin/sh: the path is already used":         tr.AddLink("usr/bin/sh", "x"),
		"add /etc: the path is already used":                tr.AddFile("etc", 0o644, nil),
		"add /etc/passwd/x: /etc/passwd is not a directory": tr.AddFile("etc/passwd/x", 0o644, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}
