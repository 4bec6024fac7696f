// Package wipe names the ways in which a machine's disk is wiped when it leaves its cluster.
// People choose one, the boot service keeps it until the machine hears of it, and the node does
// it. Which parts of a disk are wiped is not said here: see package disk.
package wipe

import (
	"fmt"
	"slices"
	"strings"
)

// How says how much of what is wiped is really gone.
type How string

// The ways. Metadata makes a disk look blank to every program in a second, but
// what was in files is still there. Discard tells the disk that nothing of it is
// needed, which an SSD does in seconds and answers as it likes afterwards. Zero
// writes all of it, which takes hours on a large disk.
const (
	Metadata How = "metadata"
	Discard  How = "discard"
	Zero     How = "zero"
)

// All are the ways, as people write them; the first is the default.
func All() []string { return []string{string(Metadata), string(Discard), string(Zero)} }

// Parse reads what a person or a program asks for. Nothing is Metadata.
func Parse(text string) (How, error) {
	if text == "" {
		return Metadata, nil
	}
	if !slices.Contains(All(), text) {
		return "", fmt.Errorf("wipe %q: want %s", text, strings.Join(All(), ", "))
	}
	return How(text), nil
}
