package ipxe

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/bootsvc/source"
)

var update = flag.Bool("update", false, "write the golden files")

func TestScript(t *testing.T) {
	base := Script{
		HTTP: "http://10.0.0.1",
		API:  "https://10.0.0.1:8443",
		CA:   "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		Args: []string{"console=tty0", "console=ttyS0", "panic=10"},
	}
	known := base
	known.Machine = "52-54-00-12-34-56"
	installed, held := known, known
	installed.From, held.From = source.Disk, source.Hold
	held.Why = "it came back; do this:\n|| reboot ${net0/mac}"
	anew := known
	anew.Anew = true
	for name, script := range map[string]Script{"unknown": base, "known": known, "installed": installed, "held": held, "anew": anew} {
		t.Run(name, func(t *testing.T) {
			got, err := script.Render()
			if err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + name + ".ipxe"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	for _, arg := range []string{"a b", "a\nboot", "a\tb", "${net0/mac}", "ü", "\x00"} {
		for _, s := range []Script{{Args: []string{arg}}, {Machine: arg}, {API: arg}, {CA: arg}, {HTTP: arg}} {
			if out, err := s.Render(); err == nil {
				t.Errorf("%+v gives a script:\n%s", s, out)
			}
		}
	}
}
