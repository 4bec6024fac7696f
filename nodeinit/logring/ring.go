// Package logring keeps what units say: the last lines of each in memory, to
// be read and followed over the API, and more of them in files of bounded
// size. It also writes the console. PID 1 is its caller.
package logring

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"
)

// RingSize bounds what one ring keeps, in bytes.
const RingSize = 256 << 10

// lineCost is what a line takes besides its text: empty lines count, too.
const lineCost = 40

// Line is one line of a log, without its newline.
type Line struct {
	Time time.Time
	Text string
}

// Ring keeps the last lines written to it. The zero value is an empty ring.
// Its methods may be called from any goroutine.
type Ring struct {
	mu    sync.Mutex
	lines []Line
	first int           // number of lines[0], counted from the first line ever
	bytes int           // that lines take
	grown chan struct{} // closed at the next line; nil: nobody waits
}

// Write adds each line of b, with the present time. It never fails.
func (r *Ring) Write(b []byte) (int, error) {
	now := time.Now()
	for line := range bytes.Lines(b) {
		r.add(Line{now, strings.ToValidUTF8(string(bytes.TrimRight(line, "\r\n")), "\uFFFD")})
	}
	return len(b), nil
}

func (r *Ring) add(l Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
	r.bytes += len(l.Text) + lineCost
	drop := 0
	for r.bytes > RingSize && drop < len(r.lines)-1 {
		r.bytes -= len(r.lines[drop].Text) + lineCost
		r.lines[drop] = Line{}
		drop++
	}
	r.lines = r.lines[drop:]
	r.first += drop
	if r.grown != nil {
		close(r.grown)
		r.grown = nil
	}
}

// Tail returns the last n lines, oldest first; all that are kept if n is 0.
func (r *Ring) Tail(n int) []Line {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines, _, _ := r.since(r.start(n))
	return lines
}

// Follow calls f with each of the last n lines (0: all), then with each new
// one, until ctx is done or f returns an error, which it returns. A reader
// slower than the writer misses lines.
func (r *Ring) Follow(ctx context.Context, n int, f func(Line) error) error {
	r.mu.Lock()
	next := r.start(n)
	r.mu.Unlock()
	for {
		r.mu.Lock()
		lines, end, grown := r.since(next)
		r.mu.Unlock()
		for _, l := range lines {
			if err := f(l); err != nil {
				return err
			}
		}
		next = end
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grown:
		}
	}
}

// start is the number of the n-th line from the end. mu is held.
func (r *Ring) start(n int) int {
	if n <= 0 || n > len(r.lines) {
		return r.first
	}
	return r.first + len(r.lines) - n
}

// since copies the lines from number next on, and says which number comes
// after them and what tells of it. mu is held.
func (r *Ring) since(next int) (lines []Line, end int, grown <-chan struct{}) {
	if r.grown == nil {
		r.grown = make(chan struct{})
	}
	skip := max(next-r.first, 0)
	return append(lines, r.lines[skip:]...), r.first + len(r.lines), r.grown
}
