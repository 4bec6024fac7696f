package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/configs/disklayout"
	"slipway/image/verity"
	"slipway/nodeinit/slot"
)

const (
	a = disklayout.SlotA
	b = disklayout.SlotB
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func now() time.Time { return noon }

// build is an image on a boot service.
type build struct {
	files  map[string][]byte
	image  Image
	broken func(name string, w http.ResponseWriter, data []byte) bool // answers instead
}

// pe is a program with a header of a machine type.
func pe(machine uint16, content string) []byte {
	head := make([]byte, 256)
	copy(head, "MZ")
	head[60] = 128
	copy(head[128:], "PE\x00\x00")
	head[132], head[133] = byte(machine), byte(machine>>8)
	return append(head, content...)
}

func newBuild(t *testing.T, version string) *build {
	t.Helper()
	from, to := filepath.Join(t.TempDir(), "squashfs"), filepath.Join(t.TempDir(), "root.img")
	data := make([]byte, 700_000)
	random := rand.NewChaCha8(sha256.Sum256([]byte(version)))
	random.Read(data)
	if err := os.WriteFile(from, data, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := verity.Build(from, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	bu := &build{files: map[string][]byte{}}
	if bu.files["root.img"], err = os.ReadFile(to); err != nil {
		t.Fatal(err)
	}
	bu.files["uki.efi"] = pe(0x8664, "kernel and initramfs "+version)
	bu.files[sdboot] = pe(0x8664, "systemd-boot of "+version)
	bu.image = Image{Version: version, Committed: noon, Architecture: "amd64", Kubernetes: "v1.37.1"}
	bu.image.Root.Hash, bu.image.Root.DataSize = root.Hash, root.DataSize
	bu.seal(t)
	return bu
}

// seal writes the manifest of what is there.
func (bu *build) seal(t *testing.T) {
	t.Helper()
	bu.image.Artifacts = nil
	for name, data := range bu.files {
		if name != manifestName {
			sum := sha256.Sum256(data)
			bu.image.Artifacts = append(bu.image.Artifacts, Artifact{name, int64(len(data)), hex.EncodeToString(sum[:])})
		}
	}
	data, err := json.Marshal(bu.image)
	if err != nil {
		t.Fatal(err)
	}
	bu.files[manifestName] = data
	sum := sha256.Sum256(data)
	bu.image.SHA256 = hex.EncodeToString(sum[:])
}

// serve returns a source with the image.
func (bu *build) serve(t *testing.T) Source {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[len("/image/"):]
		data, ok := bu.files[name]
		switch {
		case !ok:
			http.NotFound(w, r)
		case bu.broken != nil && bu.broken(name, w, data):
		default:
			w.Write(data)
		}
	}))
	t.Cleanup(server.Close)
	return Source{Base: server.URL + "/image", Client: server.Client(), Stall: time.Minute}
}

// device is a partition in memory.
type device struct {
	data     []byte
	fails    func(at int64) error // of a write
	unread   error                // of a read
	unsynced error                // of Sync
}

func (d *device) ReadAt(p []byte, at int64) (int, error) {
	if d.unread != nil {
		return 0, d.unread
	}
	return bytes.NewReader(d.data).ReadAt(p, at)
}
func (d *device) WriteAt(p []byte, at int64) (int, error) {
	if d.fails != nil {
		if err := d.fails(at); err != nil {
			return 0, err
		}
	}
	return copy(d.data[at:], p), nil
}
func (d *device) Sync() error   { return d.unsynced }
func (d *device) Forget() error { return nil }
func (d *device) Close() error  { return nil }
func (d *device) Size() int64   { return int64(len(d.data)) }

// loader keeps everything in memory.
type loader struct {
	slots         slot.Slots
	files, staged map[disklayout.Slot]string
	installed     string
	fails         error // of Install
	full          error // of Put
}

const sdboot = "loaders/systemd-bootx64.efi"

func (l *loader) Read() (slot.Slots, error)    { return l.slots, nil }
func (l *loader) Write(s slot.Slots) error     { l.slots = s; return nil }
func (l *loader) CameUp(disklayout.Slot) error { return nil }

func (l *loader) Artifacts() []string { return []string{sdboot, "uki.efi"} }

func (l *loader) Put(n disklayout.Slot, name string, _ int64, from io.Reader) error {
	next, err := l.slots.Filled(n)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(from)
	if err = errors.Join(err, l.full); err != nil {
		return err
	}
	if l.slots = next; name == sdboot {
		l.staged[n] = string(data)
	} else {
		l.files[n] = string(data)
	}
	return nil
}

func (l *loader) Install(n disklayout.Slot) error {
	if l.fails != nil {
		return l.fails
	}
	l.installed = l.staged[n]
	return nil
}

// box is a machine.
type box struct {
	loader  loader
	devices map[disklayout.Slot]*device
	journal kept
	said    []string
	fail    string          // the disk's part that fails
	writes  disklayout.Slot // what the operation under test fills
}

func newBox() *box {
	return &box{
		loader:  loader{slots: slot.Blank(), files: map[disklayout.Slot]string{}, staged: map[disklayout.Slot]string{}},
		devices: map[disklayout.Slot]*device{a: {data: make([]byte, 1<<20)}, b: {data: make([]byte, 1<<20)}},
	}
}

// others is what an operation that writes one slot leaves alone until the slot
// has shown that it works: the other slot, and the loader that firmware starts.
func (x *box) others() map[string]string {
	n := x.writes.Other()
	return map[string]string{
		"loader": x.loader.installed, "boot files": x.loader.files[n], "state": string(x.loader.slots.State(n)),
		"root image": fmt.Sprintf("%x", sha256.Sum256(x.devices[n].data)),
	}
}

func (x *box) system(t *testing.T, bu *build) System {
	im := bu.image
	return System{
		Source: bu.serve(t), Image: &im, Architecture: "amd64",
		Loader: func() (slot.Loader, error) { return &x.loader, nil },
		Open: func(n disklayout.Slot) (Device, error) {
			if d, ok := x.devices[n]; ok {
				return d, nil
			}
			return nil, errFake
		},
	}
}

func (x *box) upgrade(t *testing.T, bu *build) Operation { return x.upgradeTo(t, bu, false) }

func (x *box) upgradeTo(t *testing.T, bu *build, prepare bool) Operation {
	return Upgrade{System: x.system(t, bu), Running: a, Prepare: prepare, Journal: &x.journal, Now: now, Told: x.told}.Operation()
}

func (x *box) install(t *testing.T, bu *build) Operation {
	return Install{System: x.system(t, bu), Disk: x, State: x.step("state"), Journal: &x.journal, Now: now, Told: x.told}.Operation()
}

func (x *box) told(step string) { x.said = append(x.said, step) }

var errFake = errors.New("the disk is gone")

func (x *box) step(name string) func(context.Context) error {
	return func(context.Context) error {
		if x.fail == name {
			return errFake
		}
		if name == "filesystems" {
			x.journal.place = true
		}
		return nil
	}
}

func (x *box) Partition(ctx context.Context) error   { return x.step("partition")(ctx) }
func (x *box) Filesystems(ctx context.Context) error { return x.step("filesystems")(ctx) }
func (x *box) Unboot(ctx context.Context) error      { return x.step("unboot")(ctx) }
func (x *box) Boot(context.Context) error            { x.loader.slots = slot.Blank(); return nil }

// kept is a journal in memory.
type kept struct {
	place bool
	rec   Record
	saved int
	full  error // of Save
}

func (k *kept) Load() (Record, error) {
	if !k.place {
		return Record{}, ErrNoPlace
	}
	return k.rec, nil
}

func (k *kept) Save(rec Record) error {
	if !k.place {
		return ErrNoPlace
	}
	if k.full != nil {
		return k.full
	}
	k.rec, k.saved = rec, k.saved+1
	return nil
}

// cancelAt ends a context when a step begins: the power cut of unit tests.
func cancelAt(o Operation, step string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i, s := range o.Steps {
		if s.Name == step {
			o.Steps[i].Do = func(context.Context) error { cancel(); return fmt.Errorf("cut: %w", ctx.Err()) }
		}
	}
	return o.Run(ctx)
}
