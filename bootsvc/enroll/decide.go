package enroll

import (
	"slices"

	"slipway/bootsvc/inventory"
)

// verdict is what becomes of a key that a machine shows.
type verdict int

const (
	wait    verdict = iota // it waits for a person
	approve                // it becomes the machine's key
	issue                  // it is the machine's key already
	refuse                 // it was the machine's key once
)

// decide is pure: what the machine's record and the rules say of a key. byRule
// says that a rule approves the machine.
func decide(e inventory.Enrolment, hash string, byRule bool) verdict {
	switch {
	case hash == e.Approved.Hash:
		return issue
	case slices.Contains(e.Retired, hash):
		return refuse
	case byRule:
		return approve
	}
	return wait
}
