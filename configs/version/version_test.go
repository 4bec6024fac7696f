package version

import (
	"testing"
	"time"
)

func TestCommitTime(t *testing.T) {
	defer func(was string) { Committed = was }(Committed)
	for committed, want := range map[string]time.Time{
		"1796056697": time.Date(2026, 11, 30, 16, 38, 17, 0, time.UTC), // as git log --format=%ct
		"":           {},
		"yesterday":  {},
	} {
		if Committed = committed; !CommitTime().Equal(want) {
			t.Errorf("%q is %s, want %s", committed, CommitTime(), want)
		}
	}
}
