package powercut

import "testing"

// TestPowerCuts cuts each story three times on each kind of machine; make bench
// does many more.
func TestPowerCuts(t *testing.T) {
	const cuts = 48
	got, err := Run(cuts, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range got.Failures {
		t.Error(err)
	}
	if got.Cuts != cuts || got.Survived+len(got.Failures) != cuts {
		t.Errorf("of %d cuts %d were survived, %d failed", got.Cuts, got.Survived, len(got.Failures))
	}
}
