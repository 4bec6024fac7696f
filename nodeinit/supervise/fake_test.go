package supervise

import (
	gocmp "cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fake is a service that the test plays: it is ready after ReadyIn, ends with
// End after EndIn, and takes StopIn to stop. It notes what happens to it.
type fake struct {
	story   *story
	name    string
	ReadyIn time.Duration
	EndIn   time.Duration // 0: never
	End     error
	StopIn  time.Duration
	Long    int // this run, counted from 1, lasts two minutes
	run     int
}

func (f *fake) Run(ctx context.Context, ready func()) error {
	f.story.note("%s starts", f.name)
	f.run++
	var end <-chan time.Time
	if f.EndIn > 0 {
		end = time.After(f.EndIn)
	}
	if f.run == f.Long {
		end = time.After(2 * time.Minute)
	}
	isReady := time.After(f.ReadyIn)
	for {
		select {
		case <-isReady:
			f.story.note("%s ready", f.name)
			ready()
			isReady = nil
		case <-end:
			f.story.note("%s ends", f.name)
			return f.End
		case <-ctx.Done():
			time.Sleep(f.StopIn) // the bubble's clock: no time passes
			f.story.note("%s stopped", f.name)
			return nil
		}
	}
}

// story is what happened, with the seconds since the start of the test.
type story struct {
	mu    sync.Mutex
	start time.Time
	lines []string
}

func newStory() *story { return &story{start: time.Now()} }

func (s *story) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf("%g ", time.Since(s.start).Seconds())+fmt.Sprintf(format, args...))
}

// want compares and forgets. Lines of the same time are in no order.
func (s *story) want(t *testing.T, lines ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(byTime(lines), byTime(s.lines)); diff != "" {
		t.Errorf("story (-want +got):\n%s", diff)
	}
	s.lines = nil
}

func byTime(lines []string) []string {
	return slices.SortedFunc(slices.Values(lines), func(a, b string) int {
		var x, y float64
		fmt.Sscan(a, &x)
		fmt.Sscan(b, &y)
		return gocmp.Or(gocmp.Compare(x, y), strings.Compare(a, b))
	})
}

func (s *story) unit(name string, f fake, after ...string) Unit {
	f.story, f.name = s, name
	return Unit{Name: name, After: after, Service: &f}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func apply(t *testing.T, s *Supervisor, units ...Unit) {
	t.Helper()
	if err := s.Apply(t.Context(), units); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func stop(t *testing.T, s *Supervisor) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
