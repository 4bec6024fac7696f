package early

import (
	"testing"
	"time"
)

func TestSlackOf(t *testing.T) {
	for cmdline, want := range map[string]time.Duration{
		"":               0,
		"quiet panic=30": 0,
		"quiet slipway.timer-slack=25ms panic=30\n": 25 * time.Millisecond,
		"slipway.timer-slack=":                      -1,
		"slipway.timer-slack=fast":                  -1,
		"slipway.timer-slack=-1ms":                  -1,
		"slipway.timer-slack=1s":                    -1,
	} {
		got, err := slackOf(cmdline)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("slackOf(%q) = %v, %v, want %v", cmdline, got, err, want)
		}
	}
}
