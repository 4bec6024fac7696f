package trial

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"slipway/nodeinit/install"
)

func TestGuard(t *testing.T) {
	running := install.Record{Operation: "upgrade", Slot: "b", Reason: install.Unwell + "last seen waiting for unit etcd"}
	for _, tt := range []struct {
		name     string
		record   install.Record
		goodAt   time.Duration // 0: never
		restarts bool
		after    time.Duration
	}{
		{"nothing ever", install.Record{}, 0, false, 0},
		{"an installation", install.Record{Operation: "install", Slot: "b"}, 0, false, 0},
		{"of the other slot", install.Record{Operation: "upgrade", Slot: "a"}, 0, false, 0},
		{"over", install.Record{Operation: "upgrade", Slot: "b", Outcome: install.Succeeded}, 0, false, 0},
		{"good in time", running, 30500 * time.Millisecond, false, 31 * time.Second},
		{"never good", running, 0, true, Deadline},
		{"never good, and asked to be sooner", install.Record{Operation: "upgrade", Slot: "b", Reason: running.Reason, Within: 2 * time.Minute}, 0, true, 2 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				journal := install.File(filepath.Join(t.TempDir(), install.JournalName))
				if err := journal.Save(tt.record); err != nil {
					t.Fatal(err)
				}
				if tt.goodAt > 0 {
					time.AfterFunc(tt.goodAt, func() {
						over := tt.record
						over.Outcome = install.Succeeded
						journal.Save(over)
					})
				}
				began, restarted := time.Now(), false
				g := &Guard{
					Journal: journal, Booted: "b", Log: slog.New(slog.DiscardHandler),
					SinceBoot: func() time.Duration { return time.Since(began) }, Restart: func() { restarted = true },
				}
				if err := g.Run(t.Context(), func() {}); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); restarted != tt.restarts || took != tt.after {
					t.Errorf("restarted %t after %s, want %t after %s", restarted, took, tt.restarts, tt.after)
				}
				want := fmt.Sprintf("it was not healthy %s after its start: last seen waiting for unit etcd", tt.after)
				if r, _ := journal.Load(); restarted && r.Reason != want {
					t.Errorf("kept: %+v", r)
				}
			})
		})
	}
}
