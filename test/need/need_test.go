package need

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// spy is a test that only notes how it ends.
type spy struct {
	testing.TB
	end string
}

func (s *spy) Helper() {}

func (s *spy) Fatalf(format string, args ...any) { s.ends("failed: "+format, args...) }
func (s *spy) Skipf(format string, args ...any)  { s.ends("skipped: "+format, args...) }

func (s *spy) ends(format string, args ...any) {
	s.end = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// ending is how a test with these needs ends; empty: it goes on.
func ending(needs func(testing.TB)) string {
	s, done := &spy{}, make(chan struct{})
	go func() {
		defer close(done)
		needs(s)
	}()
	<-done
	return s.end
}

func TestNeed(t *testing.T) {
	for _, tt := range []struct {
		name, require, want string
		needs               func(testing.TB)
	}{
		{"there", "1", "", func(t testing.TB) { Programs(t, "go"); File(t, "need.go", "slipway") }},
		{"no program", "", "skipped: needs no-such-program: ", func(t testing.TB) { Programs(t, "go", "no-such-program") }},
		{"no program", "1", "failed: needs no-such-program: ", func(t testing.TB) { Programs(t, "go", "no-such-program") }},
		{"no file", "", "skipped: needs the Debian package ovmf: ", func(t testing.TB) { File(t, "no-such-file", "ovmf") }},
		{"no file", "1", "failed: needs the Debian package ovmf: ", func(t testing.TB) { File(t, "no-such-file", "ovmf") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SLIPWAY_REQUIRE_TOOLS", tt.require)
			if got := ending(tt.needs); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("required %q: it ends %q, want %q", tt.require, got, tt.want)
			}
		})
	}
}
