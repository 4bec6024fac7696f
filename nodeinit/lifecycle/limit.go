package lifecycle

import (
	"log/slog"
	"time"
)

// Limit restarts a machine whose start hangs. The watchdog does not see that: it
// is fed beside the start, which may take longer than the hardware waits.
type Limit struct {
	Log      *slog.Logger
	Watchdog *Watchdog
	Restart  func() // Restart
}

// Begin bounds a part of the start, until the timer is stopped. Should the
// restart hang as well, as it does for a driver that holds its device, the
// watchdog is there: it gets no more food.
func (l Limit) Begin(part string, limit time.Duration) *time.Timer {
	began := time.Now()
	return time.AfterFunc(limit, func() {
		l.Watchdog.Starve()
		say(l.Log, slog.LevelError, "the start hangs: the machine restarts", "in", part, "after", time.Since(began).Round(time.Second))
		l.Restart()
	})
}
