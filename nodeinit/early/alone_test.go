package early

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAlone looks at the switches at the moment of the action, and afterwards.
func TestAlone(t *testing.T) {
	for _, test := range []struct{ model, during string }{
		{"QEMU TCG CPU version 2.5+", "10 0"}, // cpu0 stays, cpu1 goes, cpu2 was off
		{"AMD EPYC 9354", "11 0"},
	} {
		root := t.TempDir()
		write := func(name, text string) {
			t.Helper()
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("cpuinfo", "processor : 0\nmodel name : "+test.model+"\n")
		for name, state := range map[string]string{"cpu0": "1", "cpu1": "1\n", "cpu2": "0"} {
			write(name+"/online", state)
		}
		write("cpufreq/online", "1")
		switches := func() string {
			var b strings.Builder
			for _, name := range []string{"cpu0", "cpu1", "cpu2"} {
				state, err := os.ReadFile(filepath.Join(root, name, "online"))
				if err != nil {
					t.Fatal(err)
				}
				if name == "cpu2" {
					b.WriteByte(' ')
				}
				b.Write(state[:1])
			}
			return b.String()
		}
		look := &looking{see: switches}
		if err := (alone{look, filepath.Join(root, "cpuinfo"), root}).do(); err != nil {
			t.Fatal(err)
		}
		if look.seen != test.during || switches() != "11 0" {
			t.Errorf("%s: during the action %q, want %q; after it %q", test.model, look.seen, test.during, switches())
		}
	}
}

type looking struct {
	see  func() string
	seen string
}

func (l *looking) String() string { return "look" }
func (l *looking) do() error      { l.seen = l.see(); return nil }
