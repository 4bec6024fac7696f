package slot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"
	"testing"

	"slipway/configs/disklayout"
)

// memory is a boot partition in memory, whose power is cut after some writes.
type memory struct {
	files map[string]string
	left  int // writes that still happen; negative: all
}

var errCut = errors.New("the power was cut")

func (m *memory) write() error {
	if m.left == 0 {
		return errCut
	}
	m.left--
	return nil
}

func (m *memory) List(dir string) ([]string, error) {
	var names []string
	for name := range m.files {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	if names == nil {
		return nil, fs.ErrNotExist
	}
	return names, nil
}

func (m *memory) ReadFile(name string) ([]byte, error) {
	text, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func (m *memory) Create(name string, size int64, from io.Reader) error {
	data, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	if int64(len(data)) != size {
		return fmt.Errorf("%s has %d bytes, not %d", name, len(data), size)
	}
	if err := m.write(); err != nil {
		return err
	}
	m.files[name] = string(data)
	return nil
}

// Rename is two writes: the power may be cut with both names there.
func (m *memory) Rename(name, base string) error {
	if err := m.write(); err != nil {
		return err
	}
	m.files[path.Join(path.Dir(name), base)] = m.files[name]
	if err := m.write(); err != nil {
		return err
	}
	delete(m.files, name)
	return nil
}

func (m *memory) Remove(name string) error {
	if _, ok := m.files[name]; !ok {
		return nil
	}
	if err := m.write(); err != nil {
		return err
	}
	delete(m.files, name)
	return nil
}

// loaders are both kinds, on boot partitions of their own.
func loaders() map[string]func(*memory) Loader {
	return map[string]func(*memory) Loader{
		"systemd-boot": func(m *memory) Loader { return SystemdBoot{m} },
		"GRUB":         func(m *memory) Loader { return GRUB{Boot: m} },
	}
}

// fill puts all boot files of a slot.
func fill(l Loader, n disklayout.Slot) error {
	for _, artifact := range l.Artifacts() {
		content := artifact + " of " + string(n)
		if err := l.Put(n, artifact, int64(len(content)), strings.NewReader(content)); err != nil {
			return err
		}
	}
	return nil
}

// move makes a loader do a transition of what it says now.
func move(l Loader, transition func(Slots, disklayout.Slot) (Slots, error), n disklayout.Slot) error {
	now, err := l.Read()
	if err != nil {
		return err
	}
	to, err := transition(now, n)
	if err != nil {
		return err
	}
	return l.Write(to)
}

// life is what happens to a machine, one thing at a time.
var life = []struct {
	name string
	do   func(Loader) error
	want Slots
}{
	{"install: filled", func(l Loader) error { return fill(l, a) }, Slots{Failed, Empty, a}},
	{"install: good", func(l Loader) error { return move(l, Slots.MarkedGood, a) }, Slots{Good, Empty, a}},
	{"upgrade: filled", func(l Loader) error { return fill(l, b) }, Slots{Good, Failed, a}},
	{"upgrade: armed", func(l Loader) error { return move(l, Slots.Armed, b) }, Slots{Good, Trying, b}},
	{"upgrade: booted", boot, Slots{Good, Failed, a}},
	{"upgrade: good", func(l Loader) error { return move(l, Slots.MarkedGood, b) }, Slots{Good, Good, b}},
	{"rollback", func(l Loader) error { return move(l, Slots.RolledBack, b) }, Slots{Trying, Good, a}},
	{"rollback: booted", boot, Slots{Failed, Good, b}},
	{"rollback: good", func(l Loader) error { return move(l, Slots.MarkedGood, a) }, Slots{Good, Good, a}},
	{"next upgrade: cleared", func(l Loader) error { return move(l, Slots.Cleared, b) }, Slots{Good, Empty, a}},
	{"next upgrade: filled", func(l Loader) error { return fill(l, b) }, Slots{Good, Failed, a}},
	{"next upgrade: armed", func(l Loader) error { return move(l, Slots.Armed, b) }, Slots{Good, Trying, b}},
	{"next upgrade: booted", boot, Slots{Good, Failed, a}},
	{"fell back, again: cleared", func(l Loader) error { return move(l, Slots.Cleared, b) }, Slots{Good, Empty, a}},
	{"again: filled", func(l Loader) error { return fill(l, b) }, Slots{Good, Failed, a}},
	{"again: good", func(l Loader) error { return move(l, Slots.MarkedGood, b) }, Slots{Good, Good, b}},
	{"damage", func(l Loader) error { return move(l, Slots.MarkedFailed, b) }, Slots{Good, Failed, a}},
}

// boot is the loader's part, as a write of ours.
func boot(l Loader) error {
	now, err := l.Read()
	if err != nil {
		return err
	}
	after, _ := now.Booted()
	return l.Write(after)
}

// TestLife cuts the power at every write of every event: what boots then is what
// booted before or what was to boot, and the event can be repeated.
func TestLife(t *testing.T) {
	for kind, open := range loaders() {
		m := &memory{files: map[string]string{}, left: -1}
		for _, event := range life {
			before, err := open(m).Read()
			if err != nil {
				t.Fatal(err)
			}
			for cut := 0; ; cut++ {
				try := &memory{maps.Clone(m.files), cut}
				err := event.do(open(try))
				if err == nil {
					m.files = try.files
					break
				}
				if !errors.Is(err, errCut) {
					t.Fatalf("%s, %s: %v", kind, event.name, err)
				}
				try.left = -1
				checkCut(t, fmt.Sprintf("%s, %s, cut after %d writes", kind, event.name, cut), open(try), before, event.want)
				if strings.HasSuffix(event.name, "booted") || event.do(open(try)) != nil {
					continue // the loader's part, or done: it refuses to be done twice
				}
				if got, err := open(try).Read(); got != event.want || err != nil {
					t.Errorf("%s, %s, cut after %d writes and repeated: %+v, want %+v, %v", kind, event.name, cut, got, event.want, err)
				}
			}
			if got, err := open(m).Read(); got != event.want || err != nil {
				t.Fatalf("%s, %s: %+v, want %+v, %v", kind, event.name, got, event.want, err)
			}
		}
	}
}

func checkCut(t *testing.T, what string, l Loader, before, after Slots) {
	t.Helper()
	got, err := l.Read()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	_, was := before.Booted()
	_, shall := after.Booted()
	_, boots := got.Booted()
	if boots != was && boots != shall {
		t.Errorf("%s: slot %q boots, before it was %q, it shall be %q", what, boots, was, shall)
	}
	hasGood := before.A == Good || before.B == Good
	if hasGood && got.A != Good && got.B != Good {
		t.Errorf("%s: nothing is good any more: %+v", what, got)
	}
}

func TestPutRefusesWhatMayBoot(t *testing.T) {
	for kind, open := range loaders() {
		m := &memory{files: map[string]string{}, left: -1}
		l := open(m)
		if err := errors.Join(fill(l, a), move(l, Slots.MarkedGood, a)); err != nil {
			t.Fatal(err)
		}
		if err := fill(l, a); err == nil {
			t.Errorf("%s: the running slot was written to", kind)
		}
		if err := l.Put(b, "manifest.json", 0, strings.NewReader("")); err == nil {
			t.Errorf("%s: a file that nobody needs was written", kind)
		}
	}
}

// disk is a disk in memory.
type disk []byte

func (d disk) ReadAt(p []byte, at int64) (int, error)  { return copy(p, d[at:]), nil }
func (d disk) WriteAt(p []byte, at int64) (int, error) { return copy(d[at:], p), nil }
func (d disk) Sync() error                             { return nil }

func TestLoadersInstall(t *testing.T) {
	fetch := func(name string) ([]byte, error) {
		return []byte(strings.Repeat(path.Base(name)+" ", 100)), nil
	}
	m := &memory{files: map[string]string{}, left: -1}
	if err := (SystemdBoot{m}).Install(fetch); err != nil || m.files[disklayout.RemovableLoader] == "" || m.files[disklayout.SystemdBoot] == "" {
		t.Errorf("systemd-boot: %v", err)
	}
	d := make(disk, 2*disklayout.MiB)
	copy(d[440:], "the partition table")
	if err := (GRUB{Boot: m, Disk: d}).Install(fetch); err != nil || m.files[disklayout.GRUBConfig] != disklayout.GRUBConfigText {
		t.Errorf("GRUB: %v", err)
	}
	if !strings.HasPrefix(string(d), "boot.img boot.img") || string(d[440:459]) != "the partition table" || string(d[disklayout.MiB:][:8]) != "core.img" {
		t.Errorf("GRUB's images are not where they belong: %q", d[430:460])
	}
}
