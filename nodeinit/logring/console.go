package logring

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// failureLines is how much of a failing unit's own output the console shows.
const failureLines = 5

// Console is a slog handler for the machine's console and for PID 1's own log:
//
//	[   12.345] etcd: ready
//	[   13.456] kubelet: backoff err="ended: exit status 1: no such file"
//	                 | the last lines that kubelet wrote
//
// The number is the seconds since the kernel started. An attribute "unit"
// becomes the line's head. Lines of units are not for the console, except the
// last ones of a unit that an error is about.
type Console struct {
	out   io.Writer
	since func() time.Duration
	logs  *Logs
	attrs []slog.Attr
	mu    *sync.Mutex
}

// NewConsole writes to out, which may block, and to PID 1's own log among
// logs. since is the time since the kernel started.
func NewConsole(out io.Writer, logs *Logs, since func() time.Duration) *Console {
	return &Console{out: out, since: since, logs: logs, mu: new(sync.Mutex)}
}

// Enabled drops debugging.
func (c *Console) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// WithAttrs returns a handler that adds attrs to each line.
func (c *Console) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *c
	with.attrs = append(append([]slog.Attr{}, c.attrs...), attrs...)
	return &with
}

// WithGroup returns c: lines for people have no groups.
func (c *Console) WithGroup(string) slog.Handler { return c }

// Handle writes one record.
func (c *Console) Handle(_ context.Context, record slog.Record) error {
	unit, rest := "init", ""
	add := func(a slog.Attr) bool {
		if a.Key == "unit" {
			unit = a.Value.String()
		} else {
			rest += " " + a.Key + "=" + quote(a.Value.String())
		}
		return true
	}
	for _, a := range c.attrs {
		add(a)
	}
	record.Attrs(add)
	text := fmt.Sprintf("%s: %s%s\n", unit, record.Message, rest)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.logs.Writer("init").Write([]byte(text))
	fmt.Fprintf(c.out, "[%9.3f] %s", c.since().Seconds(), text)
	if record.Level >= slog.LevelError && unit != "init" {
		c.showTail(unit)
	}
	return nil
}

func (c *Console) showTail(unit string) {
	ring, err := c.logs.Ring(unit)
	if err != nil {
		return // it never said anything
	}
	for _, line := range ring.Tail(failureLines) {
		fmt.Fprintf(c.out, "            | %s\n", line.Text)
	}
}

func quote(s string) string {
	if s == "" || strings.ContainsAny(s, " \"\n\t=") {
		return strconv.Quote(s)
	}
	return s
}
