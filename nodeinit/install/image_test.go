package install

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/disklayout"
)

func TestFetchImage(t *testing.T) {
	bu := newBuild(t, "v1.0.0")
	source := bu.serve(t)
	im, err := FetchImage(t.Context(), source, bu.image.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bu.image, *im); diff != "" {
		t.Error(diff)
	}
	if _, err := FetchImage(t.Context(), source, strings.Repeat("0", 64)); !errors.Is(err, ErrHash) {
		t.Errorf("of another manifest: %v", err)
	}
	delete(bu.files, manifestName)
	if _, err := FetchImage(t.Context(), source, ""); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("without a manifest: %v", err)
	}
}

func TestCheck(t *testing.T) {
	good := newBuild(t, "v1.2.0").image
	for _, tt := range []struct {
		name    string
		change  func(*Image)
		running string // of a commit of the same time
		force   bool
		want    error
		text    string
	}{
		{name: "newer", running: "v1.1.9"},
		{name: "the same", running: "v1.2.0"},
		{name: "older", running: "v1.10.0", want: ErrOlder, text: "v1.10.0"},
		{name: "older than a build after a release", running: "v1.3.0-4-gabcdef0", want: ErrOlder},
		{name: "an older commit", change: func(im *Image) { im.Version, im.Committed = "b4cf782", noon.Add(-time.Minute) }, running: "51c64fd", want: ErrOlder,
			text: "b4cf782 of 2026-01-02 11:59 UTC, and 51c64fd of 2026-01-02 12:00 UTC runs"},
		{name: "older, forced", running: "v2.0.0", force: true},
		{name: "for arm64", change: func(im *Image) { im.Architecture = "arm64" }, want: ErrArchitecture, text: `the image is for another kind of computer: it is for "arm64", this is amd64`},
		{name: "for nothing that it says", change: func(im *Image) { im.Architecture = "" }, want: ErrArchitecture, text: `it is for "", this is amd64`},
		{name: "too large", change: func(im *Image) {
			im.Artifacts = append([]Artifact{{Name: rootArtifact, Size: disklayout.SlotBytes + 1}}, im.Artifacts...)
		}, want: ErrTooSmall},
		{name: "no root hash", change: func(im *Image) { im.Root.Hash = "ab" }, text: "root hash"},
		{name: "no kernel", change: func(im *Image) { im.Artifacts = im.Artifacts[:0] }, text: "root.img"},
	} {
		im := good
		im.Artifacts = append([]Artifact(nil), good.Artifacts...)
		if tt.change != nil {
			tt.change(&im)
		}
		err := im.Check("amd64", Build{tt.running, noon}, tt.force, []string{"uki.efi"})
		switch wrong := tt.want != nil || tt.text != ""; {
		case !wrong && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case wrong && (err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text)):
			t.Errorf("%s: error is %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
	}
}

// TestOlder: versions are as `git describe --tags --always --dirty` writes them.
func TestOlder(t *testing.T) {
	before, then := noon.Add(-time.Second), noon
	for _, tt := range []struct {
		name       string
		image, run Build
		want       bool
	}{
		{"a release before", Build{"v0.1.0", then}, Build{"v0.2.0", then}, true},
		{"a release after, of an earlier commit", Build{"v0.10.0", before}, Build{"v0.9.1", then}, false},
		{"a release before, of a later commit", Build{"v0.9.1", then}, Build{"v0.10.0", before}, true},
		{"after the release before", Build{"v0.1.0-12-gabcdef0", then}, Build{"v0.2.0", before}, true},
		{"after the same release, before", Build{"v0.1.0-3-g0123456", before}, Build{"v0.1.0-12-gabcdef0", then}, true},
		{"after the same release, after", Build{"v0.1.0-12-gabcdef0", then}, Build{"v0.1.0-3-g0123456", before}, false},
		{"the release itself", Build{"v0.1.0", before}, Build{"v0.1.0-12-gabcdef0", then}, true},
		{"a candidate for it", Build{"v0.2.0-rc1", before}, Build{"v0.2.0", then}, true},
		{"commits, before", Build{"b4cf782", before}, Build{"51c64fd", then}, true},
		{"commits, after", Build{"51c64fd", then}, Build{"b4cf782", before}, false},
		{"a commit, before a release", Build{"b4cf782", before}, Build{"v0.1.0", then}, true},
		{"a commit, after a release", Build{"b4cf782", then}, Build{"v0.1.0", before}, false},
		{"the same commit", Build{"b4cf782", then}, Build{"b4cf782", then}, false},
		{"the same commit, changed", Build{"b4cf782-dirty", then}, Build{"b4cf782", then}, false},
		{"the image's time is not known", Build{"b4cf782", time.Time{}}, Build{"51c64fd", then}, false},
		{"the time of what runs is not known", Build{"b4cf782", before}, Build{"51c64fd", time.Time{}}, false},
		{"releases without times", Build{Version: "v0.1.0"}, Build{Version: "v0.2.0"}, true},
		{"not of a repository", Build{"unknown", time.Time{}}, Build{"dev", time.Time{}}, false},
	} {
		if got := tt.image.olderThan(tt.run); got != tt.want {
			t.Errorf("%s: %s is older than %s: %t", tt.name, tt.image, tt.run, got)
		}
	}
}

func TestJournalFile(t *testing.T) {
	dir := t.TempDir()
	j := File(filepath.Join(dir, JournalName))
	if rec, err := j.Load(); err != nil || rec.Operation != "" {
		t.Errorf("a journal that was never saved: %+v, %v", rec, err)
	}
	want := Record{Operation: "upgrade", Key: "k", Slot: b, Started: noon, Updated: noon, Done: []string{"clear"}, Step: "root image"}
	for range 2 {
		if err := j.Save(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.Load()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	nowhere := File(filepath.Join(dir, "no", JournalName))
	if _, err := nowhere.Load(); !errors.Is(err, ErrNoPlace) {
		t.Errorf("load without a state partition: %v", err)
	}
	if err := nowhere.Save(want); !errors.Is(err, ErrNoPlace) {
		t.Errorf("save without a state partition: %v", err)
	}
}

func TestSummary(t *testing.T) {
	for _, tt := range []struct {
		rec  Record
		want string
	}{
		{Record{}, ""},
		{Record{Operation: "upgrade", Slot: b, Version: "v2.0.0", Done: []string{"clear"}, Step: "root image", Error: "fetch root.img: the download ended too early", Updated: noon},
			`upgrade of slot b to v2.0.0: not finished, in step "root image": fetch root.img: the download ended too early (2026-01-02 12:00:00 UTC)`},
		{Record{Operation: "upgrade", Slot: b, Done: []string{"clear"}, Updated: noon}, "upgrade of slot b: not finished (2026-01-02 12:00:00 UTC)"},
		{Record{Operation: "rollback", Slot: a, Done: []string{armStep}, Updated: noon}, "rollback of slot a: to be tried, or on trial (2026-01-02 12:00:00 UTC)"},
		{Record{Operation: "upgrade", Slot: b, Outcome: FellBack, Reason: noReason, Updated: noon}, "upgrade of slot b: fell back: " + noReason + " (2026-01-02 12:00:00 UTC)"},
		{Record{Operation: ResetName, Key: "zero", Updated: noon}, "reset: not finished (2026-01-02 12:00:00 UTC)"},
	} {
		if diff := cmp.Diff(tt.want, tt.rec.Summary()); diff != "" {
			t.Errorf("%+v:\n%s", tt.rec, diff)
		}
	}
}
