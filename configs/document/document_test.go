package document_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/document"
	"slipway/configs/secret"
)

type sample struct {
	Text   string            `yaml:"text"`
	Yes    bool              `yaml:"yes,omitempty"`
	Maybe  *bool             `yaml:"maybe,omitempty"`
	Addr   netip.Addr        `yaml:"addr"`
	Secret secret.String     `yaml:"secret"`
	Map    map[string]string `yaml:"map"`
	List   []sample          `yaml:"list"`
	Inner  struct {
		Text string `yaml:"text"`
	} `yaml:"inner"`
}

func TestDecode(t *testing.T) {
	const text = `
text: |
  two
  lines
yes: true
maybe: false
addr: 10.0.0.1
secret: hunter2
map: {a: "1", "b/c": two, '3': three}
list:
  - {text: one}
  -
inner:   # nothing given
`
	var s sample
	if err := document.Decode([]byte(text), "f", &s).Err(nil); err != nil {
		t.Fatal(err)
	}
	no := false
	if s.Text != "two\nlines\n" || !s.Yes || s.Maybe == nil || *s.Maybe != no || s.Addr != netip.MustParseAddr("10.0.0.1") || s.Secret.Reveal() != "hunter2" {
		t.Errorf("got %+v", s)
	}
	if diff := cmp.Diff(map[string]string{"a": "1", "b/c": "two", "3": "three"}, s.Map); diff != "" {
		t.Error(diff)
	}
	if len(s.List) != 2 || s.List[0].Text != "one" {
		t.Errorf("list %+v", s.List)
	}
}

// TestErr: what checking finds stands where it belongs, in the file's order,
// and not where reading failed already.
func TestErr(t *testing.T) {
	const text = "text: a\nlist:\n  - text: b\n    map: {k: v}\n  - text: [c]\ninner:\n  text: d\n"
	var s sample
	source := document.Decode([]byte(text), "f", &s)
	var ps document.Problems
	ps.Add("inner.text", "late", "")
	ps.Add(document.Key("list[0].map", "k"), "key", "another")
	ps.Add("list[0].addr", "missing, so at its parent", "")
	ps.Add("list[1].text", "said already", "")
	ps.Add("nosuch", "at the top", "")
	want := `f:1:1: nosuch: at the top
f:3:5: list[0].addr: missing, so at its parent
f:4:14: list[0].map["k"]: key; valid: another
f:5:11: list[1].text: this is a list; valid: text; in quotes if it looks like something else
f:7:9: inner.text: late`
	if diff := cmp.Diff(want, source.Err(ps).Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestBounds: hostile documents are refused before they cost anything.
func TestBounds(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"size":       {strings.Repeat("# comment\n", 200_000), "the document has 2000000 bytes"},
		"flow":       {"list: " + strings.Repeat("[", 500_000), "nested too deeply"},
		"flow maps":  {strings.Repeat("{a: ", 200_000), "nested too deeply"},
		"sequences":  {"list:\n" + strings.Repeat("- ", 200_000), "nested too deeply"},
		"questions":  {strings.Repeat("? ", 200_000), "nested too deeply"},
		"indented":   {nested(400), "nested too deeply"},
		"aliases":    {"text: &a x\nmap: {a: *a, b: *a}\n", "anchors, aliases"},
		"tabs":       {"text:\tx\n\tyes: true\n", "valid: YAML"},
		"binary":     {"\x00\xff\xfe", "f:1:1"},
		"plain text": {"hello", "this is text"},
	} {
		t.Run(name, func(t *testing.T) {
			var s sample
			err := document.Decode([]byte(tt.text), "f", &s).Err(nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%.200v, want %q", err, tt.want)
			}
		})
	}
}

func nested(levels int) string {
	var b strings.Builder
	for i := range levels {
		b.WriteString(strings.Repeat(" ", i) + "list:\n" + strings.Repeat(" ", i) + "-\n")
	}
	return b.String()
}
