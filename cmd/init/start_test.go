package main

import (
	"testing"
	"time"

	"slipway/nodeinit/install"
	"slipway/nodeinit/trial"
)

// TestLimit: a machine that is on trial goes back soon after its guard would have
// said why; one that is not has all the time that its file systems may need.
func TestLimit(t *testing.T) {
	for name, tt := range map[string]struct {
		onTrial bool
		record  install.Record
		want    time.Duration
	}{
		"no trial":                 {false, install.Record{Within: time.Minute}, diskLimit},
		"a trial, says the loader": {true, install.Record{}, trial.Deadline + guardFirst},
		"a trial of its own time":  {true, install.Record{Within: 4 * time.Minute}, 4*time.Minute + guardFirst},
	} {
		if got := limit(tt.onTrial, tt.record); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
