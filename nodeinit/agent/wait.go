package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// console tells the person in front of the machine what the agent does. It
// also keeps the log, and what the agent waits for, since when.
type console struct {
	out       io.Writer // the machine's screen and serial line; may block, so it is written rarely
	log       *slog.Logger
	sinceBoot func() time.Duration

	mu      sync.Mutex
	waiting string    // empty: for nothing
	detail  string    // why it is not there yet, as last said
	since   time.Time // of waiting
	said    time.Time // when waiting was last on the screen
}

// A wait that goes on is told again after repeatAfter; with another reason
// already after renewAfter.
const (
	repeatAfter = 30 * time.Second
	renewAfter  = 5 * time.Second
)

func (c *console) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.log.Info(text)
	fmt.Fprintf(c.out, "[%9.3f] agent: %s\n", c.sinceBoot().Seconds(), text)
}

// wait says what the agent waits for from now on and what it does next; empty
// for nothing. Saying the same again keeps the time since when.
func (c *console) wait(what, next string) { c.waitBecause(what, "", next) }

// waitBecause is wait with the reason why it still waits.
func (c *console) waitBecause(what, detail, next string) {
	c.mu.Lock()
	now := time.Now()
	if what != c.waiting {
		c.waiting, c.since, c.said = what, now, time.Time{}
	}
	quiet := now.Sub(c.said)
	tell := what != "" && (quiet >= repeatAfter || detail != c.detail && quiet >= renewAfter)
	if tell {
		c.detail, c.said = detail, now
	}
	since := now.Sub(c.since).Round(time.Second)
	c.mu.Unlock()
	if !tell {
		return
	}
	if detail != "" {
		detail = " (" + detail + ")"
	}
	c.say("waiting for %s%s, for %s so far; %s", what, detail, since, next)
}

// attempts is how something is tried until it works: each attempt has a
// deadline, and the pause after it grows.
type attempts struct {
	deadline time.Duration // of one attempt; 0: it ends by itself
	first    time.Duration // pause after the first attempt
	most     time.Duration // longest pause
}

// finalError ends the attempts.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// pendingError is no failure: the other side asks to come again.
type pendingError struct{ what string }

func (e pendingError) Error() string { return e.what }

// until tries until it works, ctx ends or the error is final. What it waits
// for stands on the console: what, or what a pendingError says.
func (c *console) until(ctx context.Context, a attempts, what string, try func(context.Context) error) error {
	for pause := a.first; ; pause = min(pause*2, a.most) {
		err := a.once(ctx, try)
		var final finalError
		switch {
		case err == nil:
			c.wait("", "")
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case errors.As(err, &final):
			return final.error
		}
		c.tell(what, pause, err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (a attempts) once(ctx context.Context, try func(context.Context) error) error {
	if a.deadline == 0 {
		return try(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, a.deadline)
	defer cancel()
	return try(ctx)
}

func (c *console) tell(what string, pause time.Duration, err error) {
	var pending pendingError
	if errors.As(err, &pending) {
		c.wait(pending.what, fmt.Sprintf("asks again every %s", pause))
		return
	}
	c.waitBecause(what, err.Error(), fmt.Sprintf("tries again in %s", pause))
}
