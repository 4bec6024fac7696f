package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"slipway/configs/disklayout"
)

// ErrNoPlace says that a journal has nowhere to be kept: the state partition is
// not made yet, or is gone already.
var ErrNoPlace = errors.New("there is no state partition")

// Record is what the journal holds: the latest operation.
type Record struct {
	Operation string          `json:"operation"`
	Key       string          `json:"key,omitempty"`     // of the image: the SHA-256 of its manifest
	Version   string          `json:"version,omitempty"` // of the image
	Slot      disklayout.Slot `json:"slot,omitempty"`    // the one that is written or tried
	Started   time.Time       `json:"started"`
	Updated   time.Time       `json:"updated"`
	Within    time.Duration   `json:"within,omitempty"` // of the kernel's start the new system must be healthy; 0: as ever
	Done      []string        `json:"done,omitempty"`
	Step      string          `json:"step,omitempty"`  // being done
	Error     string          `json:"error,omitempty"` // why it was not
	// Outcome is empty until the operation has come to its end, which for an
	// upgrade is after its first boot.
	Outcome Outcome `json:"outcome,omitempty"`
	Reason  string  `json:"reason,omitempty"` // of the outcome
}

// Installed tells whether a disk with this journal boots: its installation came
// to its end, and no reset has begun to take it off again. An image that was
// written to the disk has no journal yet.
func (r Record) Installed() bool {
	switch r.Operation {
	case installName:
		return r.Outcome == Succeeded || slices.Contains(r.Done, loaderStep)
	case ResetName:
		return false
	}
	return true
}

// Tries reports whether the slot that runs is the one on trial.
func (r Record) Tries(running disklayout.Slot) bool {
	return (r.Operation == upgradeName || r.Operation == rollbackName) && r.Outcome == "" && r.Slot == running
}

// ResetName is the operation of a Record whose machine has left its cluster and
// is about to be wiped; Key says how. It is not resumed: it is done again.
const ResetName = "reset"

// Summary says in a line what the operation was, how far it came and how it
// ended; empty if there was none.
func (r Record) Summary() string {
	if r.Operation == "" {
		return ""
	}
	text := r.Operation
	if r.Slot != "" {
		text += " of slot " + string(r.Slot)
	}
	if r.Version != "" {
		text += " to " + r.Version
	}
	switch {
	case r.Outcome != "":
		text += ": " + string(r.Outcome)
	case slices.Contains(r.Done, armStep):
		text += ": to be tried, or on trial"
	case r.Step != "":
		text += fmt.Sprintf(": not finished, in step %q", r.Step)
	default:
		text += ": not finished"
	}
	for _, why := range []string{r.Reason, r.Error} {
		if why != "" {
			text += ": " + why
		}
	}
	return text + r.Updated.UTC().Format(" (2006-01-02 15:04:05 UTC)")
}

// Outcome is how an operation ended.
type Outcome string

// The outcomes.
const (
	Succeeded Outcome = "succeeded"
	FellBack  Outcome = "fell back"
)

// resume takes over what an older record has done, if it is of the same
// operation and not at its end. To arm is not among it: the try may be used up by
// now, without a boot that says so.
func (r *Record) resume(old Record) {
	if old.Operation != r.Operation || old.Key != r.Key || old.Slot != r.Slot || old.Outcome != "" {
		return
	}
	r.Started = old.Started
	for _, step := range old.Done {
		if step != armStep && !slices.Contains(r.Done, step) {
			r.Done = append(r.Done, step)
		}
	}
}

// Journal keeps one Record. Save is there wholly or not at all after a power
// cut, and durable when it returns. Load of a journal that was never saved is a
// Record without an operation.
type Journal interface {
	Load() (Record, error)
	Save(Record) error
}

// File is a journal in a file on the state partition. A folder that does not
// exist is ErrNoPlace.
type File string

// JournalName is the journal's name in the state partition.
const JournalName = "journal.json"

// Load implements Journal.
func (f File) Load() (Record, error) {
	var rec Record
	if _, err := os.Stat(filepath.Dir(string(f))); errors.Is(err, fs.ErrNotExist) {
		return rec, ErrNoPlace
	}
	data, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return rec, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &rec)
	}
	if err != nil {
		return rec, fmt.Errorf("read journal %s: %w", f, err)
	}
	return rec, nil
}

// Save implements Journal. The new content has its name only after it is on
// the medium, and the folder is written before Save returns.
func (f File) Save(rec Record) error {
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(string(f)))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoPlace
	} else if err != nil {
		return err
	}
	defer folder.Close()
	tmp, err := os.OpenFile(string(f)+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(data, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), string(f)); err != nil {
		return err
	}
	return folder.Sync()
}
