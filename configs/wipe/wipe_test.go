package wipe

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]How{"": Metadata, "metadata": Metadata, "discard": Discard, "zero": Zero} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	if _, err := Parse("everything"); err == nil || err.Error() != `wipe "everything": want metadata, discard, zero` {
		t.Errorf("an unknown way: %v", err)
	}
}
