package slot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
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

// TestStarts: systemd-boot counts the starts of a good slot. One that comes up
// gets them back; one that does not gives way, and its line of loader.conf
// matches no more.
func TestStarts(t *testing.T) {
	m := &memory{files: map[string]string{}, left: -1}
	l := SystemdBoot{m}
	if err := errors.Join(fill(l, a), move(l, Slots.MarkedGood, a), fill(l, b), move(l, Slots.MarkedGood, b)); err != nil {
		t.Fatal(err)
	}
	start := func(from, to string, want Slots) {
		t.Helper()
		if err := m.Rename("/EFI/Linux/"+from, to); err != nil {
			t.Fatal(err)
		}
		wanted, err := l.wanted()
		if got, _ := l.Read(); got != want || err != nil {
			t.Errorf("%s: %+v, want %+v, %v", to, got, want, err)
		}
		if matches, _ := path.Match(wanted, to); matches != (want.Next == b) {
			t.Errorf("%s matches %s: %t", wanted, to, matches)
		}
	}
	good := Slots{Good, Good, b}
	start("slipway-b+3.efi", "slipway-b+2-1.efi", good)
	if err := l.CameUp(b); err != nil || m.files["/EFI/Linux/slipway-b+3.efi"] == "" {
		t.Errorf("it came up: %v, %q", err, slices.Sorted(maps.Keys(m.files)))
	}
	start("slipway-b+3.efi", "slipway-b+2-1.efi", good)
	start("slipway-b+2-1.efi", "slipway-b+1-2.efi", good)
	start("slipway-b+1-2.efi", "slipway-b+0-3.efi", Slots{Good, Failed, a})
	if err := l.CameUp(a); err != nil || m.files["/EFI/Linux/slipway-b+0-3.efi"] == "" {
		t.Errorf("the other came up: %v, %q", err, slices.Sorted(maps.Keys(m.files)))
	}
	if err := l.CameUp(b); err != nil || m.files["/EFI/Linux/slipway-b+3.efi"] == "" {
		t.Errorf("it came up at its last start: %v, %q", err, slices.Sorted(maps.Keys(m.files)))
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

// disk is a disk in memory, whose power is cut together with the boot partition's.
type disk struct {
	data []byte
	m    *memory
}

func (d disk) ReadAt(p []byte, at int64) (int, error) { return copy(p, d.data[at:]), nil }
func (d disk) WriteAt(p []byte, at int64) (int, error) {
	if err := d.m.write(); err != nil {
		return 0, err
	}
	return copy(d.data[at:], p), nil
}
func (d disk) Sync() error { return nil }

// put writes a slot's loader into it.
func put(t *testing.T, l Loader, n disklayout.Slot, content string) {
	t.Helper()
	for _, name := range l.Artifacts() {
		if strings.HasPrefix(name, "loaders/") {
			text := strings.Repeat(path.Base(name)+" "+content+" ", 100)
			if err := l.Put(n, name, int64(len(text)), strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// started is what a disk's firmware starts: GRUB's core.img, or systemd-boot.
func started(m *memory, d disk) string {
	if program := m.files[disklayout.RemovableLoader]; program != "" {
		return program
	}
	if !strings.HasPrefix(string(d.data), "boot.img") {
		return ""
	}
	at := int64(binary.LittleEndian.Uint64(d.data[coreHint:])) * oneSector
	if rest := int64(binary.LittleEndian.Uint64(d.data[at+restHint:])) * oneSector; rest != at+oneSector {
		return fmt.Sprintf("core.img at %d looks for its rest at %d", at, rest)
	}
	return strings.Split(string(d.data[:20]), " ")[1] + string(d.data[at:at+50])
}

// TestLoaderReplaced: whenever the power is cut, firmware starts the old loader
// or the new one, and on a disk without one nothing or the new one; once done
// there is nothing more to write.
func TestLoaderReplaced(t *testing.T) {
	for kind := range loaders() {
		m := &memory{files: map[string]string{}, left: -1}
		d := disk{make([]byte, 2*disklayout.MiB), m}
		copy(d.data[440:], "the partition table")
		open := func(m *memory, d disk) Loader {
			if kind == "GRUB" {
				return GRUB{Boot: m, Disk: d}
			}
			return SystemdBoot{m}
		}
		was := ""
		for round, n := range []disklayout.Slot{a, b, a, b} {
			l := open(m, d)
			if err := move(l, Slots.Cleared, n); err != nil {
				t.Fatal(err)
			}
			put(t, l, n, fmt.Sprint("v", round))
			done := disk{bytes.Clone(d.data), &memory{maps.Clone(m.files), -1}}
			if err := open(done.m, done).Install(n); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			will := started(done.m, done)
			if !strings.Contains(will, fmt.Sprint("v", round)) {
				t.Fatalf("%s: starts %.60q", kind, will)
			}
			for cut := 0; ; cut++ {
				try := disk{bytes.Clone(d.data), &memory{maps.Clone(m.files), cut}}
				err := open(try.m, try).Install(n)
				if got := started(try.m, try); got != was && got != will {
					t.Errorf("%s, cut after %d writes: starts %.60q", kind, cut, got)
				}
				if err == nil {
					break
				}
				try.m.left = -1
				if err := open(try.m, try).Install(n); err != nil || started(try.m, try) != will {
					t.Errorf("%s, cut after %d writes and repeated: %v, starts %.60q", kind, cut, err, started(try.m, try))
				}
			}
			*m = *done.m
			d.data, was = done.data, will
			m.left = 0
			if err := open(m, d).Install(n); err != nil {
				t.Errorf("%s: it writes what is there: %v", kind, err)
			}
			m.left = -1
		}
		if string(d.data[440:459]) != "the partition table" {
			t.Errorf("%s: the partition table is %q", kind, d.data[440:459])
		}
	}
}

// TestDamagedLoader: one that is not as it was put does not replace another.
func TestDamagedLoader(t *testing.T) {
	for kind, open := range loaders() {
		m := &memory{files: map[string]string{}, left: -1}
		l := open(m)
		put(t, l, a, "v1")
		for name, text := range m.files {
			m.files[name] = "x" + text[1:]
		}
		if err := l.Install(a); err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("%s: %v", kind, err)
		}
		if err := l.Install(b); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a slot without one: %v", kind, err)
		}
	}
}
