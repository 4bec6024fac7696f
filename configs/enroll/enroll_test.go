package enroll_test

import (
	"strings"
	"testing"

	"slipway/configs/enroll"
)

func TestParseMachineID(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"52-54-00-12-34-56", "52-54-00-12-34-56"},
		{"52:54:00:AB:CD:EF", "52-54-00-ab-cd-ef"},
		{"5254.00ab.cdef", "52-54-00-ab-cd-ef"},
		{"", ""},
		{"52-54-00-12-34", ""},
		{"52-54-00-12-34-56-78-9a", ""}, // EUI-64
		{"01-00-5e-00-00-01", ""},       // multicast
		{"ff-ff-ff-ff-ff-ff", ""},       // broadcast
		{"00-00-00-00-00-00", ""},
		{"../../etc/passwd", ""},
	} {
		got, err := enroll.ParseMachineID(tt.in)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("ParseMachineID(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

// TestWords pins the words: both ends of an enrolment must compute the same,
// whatever their version.
func TestWords(t *testing.T) {
	const want = "hazard-follow-wonder-cabbage"
	got := enroll.Words([]byte("key"), []byte("ca"))
	if got != want {
		t.Errorf("Words = %q, want %q", got, want)
	}
	if n := len(strings.Split(got, "-")); n != 4 {
		t.Errorf("%d words, want 4", n)
	}
	for _, other := range []string{enroll.Words([]byte("kex"), []byte("ca")), enroll.Words([]byte("key"), []byte("cb")), enroll.Words([]byte("ca"), []byte("key"))} {
		if other == got {
			t.Errorf("another pair has the same words %q", got)
		}
	}
}
