package early

import (
	"testing"
	"time"
)

func TestSlackOf(t *testing.T) {
	for cmdline, want := range map[string]struct{ real, emulated time.Duration }{
		"":               {0, emulatedSlack},
		"quiet panic=30": {0, emulatedSlack},
		"quiet slipway.timer-slack=25ms panic=30\n": {25 * time.Millisecond, 25 * time.Millisecond},
		"slipway.timer-slack=0s":                    {0, 0},
		"slipway.timer-slack=":                      {-1, -1},
		"slipway.timer-slack=fast":                  {-1, -1},
		"slipway.timer-slack=-1ms":                  {-1, -1},
		"slipway.timer-slack=1s":                    {-1, -1},
	} {
		for emulated, want := range map[bool]time.Duration{false: want.real, true: want.emulated} {
			got, err := slackOf(cmdline, emulated)
			if (err != nil) != (want < 0) || err == nil && got != want {
				t.Errorf("slackOf(%q, emulated %t) = %v, %v, want %v", cmdline, emulated, got, err, want)
			}
		}
	}
}
