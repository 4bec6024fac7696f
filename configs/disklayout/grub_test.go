package disklayout

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvironmentBlock(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings []Setting
		size     int
	}{
		{"empty", nil, 1024},
		{"slots", []Setting{{"good", "a"}, {"spare", ""}, {"try", "b"}, {"tries", "1"}}, 1024},
		{"escapes", []Setting{{"arguments", "a=\\ \\\\ b\nc #d"}}, 1024},
		{"long", []Setting{{"arguments", strings.Repeat("word ", 300)}}, 1536},
	} {
		block := EnvironmentBlock(tt.settings...)
		got, err := ReadEnvironmentBlock(block)
		want := map[string]string{}
		for _, s := range tt.settings {
			want[s.Name] = s.Value
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil || len(block) != tt.size {
			t.Errorf("%s: %d bytes, %v\n%s", tt.name, len(block), err, diff)
		}
	}
	if _, err := ReadEnvironmentBlock(make([]byte, 1024)); err == nil {
		t.Error("zeroes were taken for an environment block")
	}
}

// TestGRUBConfig: what the script reads is what the layout writes.
func TestGRUBConfig(t *testing.T) {
	for _, path := range []string{GRUBEnvironment, Slot("$1").Kernel(), Slot("$1").Initramfs(), Slot("$1").Arguments()} {
		if !strings.Contains(GRUBConfigText, " "+path) {
			t.Errorf("grub.cfg does not name %s", path)
		}
	}
}
