package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/google/go-cmp/cmp"
)

const volumeSize = 8 << 20

// other is the file system seen by a driver that is not ours.
type other struct{ *fat32.FileSystem }

// format makes a file system with the other driver, which made the real one too.
func format(t *testing.T) (*os.File, other) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "boot"))
	if err == nil {
		err = f.Truncate(volumeSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	made, err := fat32.Create(file.New(f, false), volumeSize, 0, 512, "SLIPWAY", true)
	if err != nil {
		t.Fatal(err)
	}
	return f, other{made}
}

func reread(t *testing.T, f *os.File) other {
	t.Helper()
	o, err := fat32.Read(file.New(f, false), volumeSize, 0, 512)
	if err != nil {
		t.Fatalf("the other driver does not take the file system: %v", err)
	}
	return other{o}
}

func open(t *testing.T, f *os.File) *Volume {
	t.Helper()
	v, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (o other) content(t *testing.T, name string) []byte {
	t.Helper()
	f, err := o.OpenFile(strings.TrimPrefix(name, "/"), os.O_RDONLY)
	if err != nil {
		t.Fatalf("the other driver does not open %s: %v", name, err)
	}
	defer f.Close()
	data := make([]byte, 1<<20) // at once: it loses its place after part of a cluster
	n, err := f.Read(data)
	if err != nil && err != io.EOF {
		t.Fatalf("the other driver does not read %s: %v", name, err)
	}
	return data[:n]
}

// TestBothWays: what we write another driver reads, and the other way round.
func TestBothWays(t *testing.T) {
	f, o := format(t)
	if err := errors.Join(o.Mkdir("EFI"), o.Mkdir("EFI/Linux")); err != nil {
		t.Fatal(err)
	}
	theirs, err := o.OpenFile("EFI/Linux/slipway-a.efi", os.O_CREATE|os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	image := bytes.Repeat([]byte("slot a "), 10_000)
	if _, err := theirs.Write(image); err != nil {
		t.Fatal(err)
	}
	theirs.Close()

	v := open(t, f)
	if got, err := v.ReadFile("/EFI/Linux/slipway-a.efi"); err != nil || !bytes.Equal(got, image) {
		t.Errorf("their file reads as %d bytes, %v", len(got), err)
	}
	files := map[string][]byte{
		"/EFI/Linux/slipway-b+1.efi": bytes.Repeat([]byte("slot b "), 20_000),
		"/EFI/BOOT/BOOTX64.EFI":      []byte("loader"),
		"/loader/loader.conf":        []byte("timeout 0\n"),
		"/slipway/a/kernel":          bytes.Repeat([]byte{7}, 512),
	}
	for name, data := range files {
		if err := v.Create(name, int64(len(data)), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	o = reread(t, f)
	for name, data := range files {
		if got := o.content(t, name); !bytes.Equal(got, data) {
			t.Errorf("%s: the other driver reads %d bytes of %d", name, len(got), len(data))
		}
	}
	names, err := open(t, f).List("EFI/Linux")
	if diff := cmp.Diff([]string{"slipway-a.efi", "slipway-b+1.efi"}, names); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// model is what a volume should hold.
type model map[string][]byte

// change does one thing at random to a volume and to its model.
func (m model) change(v *Volume, r *rand.Rand) error {
	names := []string{}
	for i := range 12 {
		names = append(names, fmt.Sprintf("/dir/name %d of some length.efi", i))
	}
	name := names[r.IntN(len(names))]
	_, exists := m[name]
	switch r.IntN(4) {
	case 0:
		delete(m, name)
		return v.Remove(name)
	case 1:
		to := filepath.Base(names[r.IntN(len(names))]) + "+0-1"
		if _, taken := m["/dir/"+to]; !exists || taken {
			return nil
		}
		m["/dir/"+to] = m[name]
		delete(m, name)
		return v.Rename(name, to)
	default:
		data := make([]byte, r.IntN(200_000))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		m[name] = data
		return v.Create(name, int64(len(data)), bytes.NewReader(data))
	}
}

func (m model) compare(t *testing.T, v *Volume, o other) {
	t.Helper()
	got, err := v.List("dir")
	if err != nil && len(m) > 0 {
		t.Fatal(err)
	}
	var want []string
	for name, data := range m {
		want = append(want, filepath.Base(name))
		if have, err := v.ReadFile(name); err != nil || !bytes.Equal(have, data) {
			t.Fatalf("%s reads as %d bytes of %d, %v", name, len(have), len(data), err)
		}
		if have := o.content(t, name); !bytes.Equal(have, data) {
			t.Fatalf("the other driver reads %s as %d bytes of %d", name, len(have), len(data))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestManyChanges(t *testing.T) {
	f, _ := format(t)
	r := rand.New(rand.NewPCG(1, 2))
	v, m := open(t, f), model{}
	for i := range 150 {
		if err := m.change(v, r); errors.Is(err, ErrFull) {
			t.Fatalf("change %d: clusters are lost: %v", i, err)
		} else if err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		if i%10 == 0 {
			v = open(t, f)
			m.compare(t, v, reread(t, f))
		}
	}
}

// TestCopiesBecomeEqual: a power cut left the second copy of the table older.
func TestCopiesBecomeEqual(t *testing.T) {
	f, _ := format(t)
	v := open(t, f)
	if err := v.Create("/one", 3, strings.NewReader("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 512), v.tables[1]); err != nil {
		t.Fatal(err)
	}
	v = open(t, f)
	if got, err := v.ReadFile("/one"); string(got) != "one" || err != nil {
		t.Errorf("the first copy counts: %q, %v", got, err)
	}
	if err := v.Create("/two", 3, strings.NewReader("two")); err != nil {
		t.Fatal(err)
	}
	if got := reread(t, f).content(t, "/one"); string(got) != "one" {
		t.Errorf("the other driver reads %q", got)
	}
}

func TestRefusals(t *testing.T) {
	f, _ := format(t)
	v := open(t, f)
	write := func(name string, size int64, data string) error {
		return v.Create(name, size, strings.NewReader(data))
	}
	if err := errors.Join(write("/a/one", 3, "one"), write("/a/two", 3, "two")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		do   func() error
		want error
	}{
		{"too short", func() error { return write("/a/one", 4, "ONE") }, io.ErrUnexpectedEOF},
		{"too long", func() error { return write("/a/one", 2, "ONE") }, nil},
		{"too large", func() error { return write("/a/one", volumeSize, "ONE") }, ErrFull},
		{"over a directory", func() error { return write("/a", 3, "ONE") }, nil},
		{"below a file", func() error { return write("/a/one/x", 3, "ONE") }, nil},
		{"rename onto another", func() error { return v.Rename("/a/one", "TWO") }, fs.ErrExist},
		{"rename nothing", func() error { return v.Rename("/a/three", "four") }, fs.ErrNotExist},
		{"remove a directory", func() error { return v.Remove("/a") }, nil},
	} {
		if err := tt.do(); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: error is %v", tt.name, err)
		}
	}
	if err := v.Remove("/a/three"); err != nil {
		t.Errorf("remove nothing: %v", err)
	}
	if got, err := v.ReadFile("/A/ONE"); string(got) != "one" || err != nil {
		t.Errorf("the file is %q after all refusals, %v", got, err)
	}
	if _, err := Open(bytesDevice(make([]byte, 4096))); err == nil {
		t.Error("zeroes were taken for a file system")
	}
}

// bytesDevice is a device in memory.
type bytesDevice []byte

func (b bytesDevice) ReadAt(p []byte, at int64) (int, error)  { return copy(p, b[at:]), nil }
func (b bytesDevice) WriteAt(p []byte, at int64) (int, error) { return copy(b[at:], p), nil }
func (b bytesDevice) Sync() error                             { return nil }
