package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestStartsInOrderAndStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		apply(t, s,
			story.unit("kubelet", fake{StopIn: time.Second}, "containerd", "apiserver"),
			story.unit("apiserver", fake{ReadyIn: 5 * time.Second, StopIn: 2 * time.Second}, "etcd"),
			story.unit("etcd", fake{ReadyIn: 3 * time.Second}),
			story.unit("containerd", fake{ReadyIn: time.Second}),
		)
		want := []Status{
			{Name: "kubelet", State: Waiting, WaitingFor: "containerd, apiserver"},
			{Name: "apiserver", State: Waiting, WaitingFor: "etcd"},
			{Name: "etcd", State: Starting},
			{Name: "containerd", State: Starting},
		}
		if diff := cmp.Diff(want, s.Status(), cmpopts.IgnoreFields(Status{}, "Since")); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		time.Sleep(time.Minute)
		story.want(t, "0 containerd starts", "0 etcd starts", "1 containerd ready", "3 etcd ready", "3 apiserver starts", "8 apiserver ready", "8 kubelet starts", "8 kubelet ready")

		stop(t, s)
		story.want(t, "61 containerd stopped", "61 kubelet stopped", "63 apiserver stopped", "63 etcd stopped")
		for _, status := range s.Status() {
			if status.State != Stopped {
				t.Errorf("%s is %s", status.Name, status.State)
			}
		}
		if err := s.Apply(t.Context(), nil); err == nil {
			t.Error("Apply after Stop")
		}
	})
}

func TestBackoffGrowsToALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		u := story.unit("a", fake{ReadyIn: time.Hour, EndIn: time.Second, End: errors.New("no disk")})
		apply(t, s, u)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		story.want(t, "0 a starts", "1 a ends", "1.25 a starts", "2.25 a ends", "2.75 a starts", "3.75 a ends")
		got := s.Status()[0]
		want := Status{Name: "a", State: Backoff, Since: story.start.Add(3750 * time.Millisecond), Restarts: 3, WaitingFor: "restart in 1s", LastError: "no disk"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}

		time.Sleep(10 * time.Minute)
		synctest.Wait()
		synctest.Wait()
		n := len(story.lines)
		first, last := story.lines[n-3], story.lines[n-1]
		var a, b float64
		fmt.Sscan(first, &a)
		fmt.Sscan(last, &b)
		if b-a > 31 || b-a < 29 {
			t.Errorf("the delay is not capped: %q, %q", first, last)
		}
		stop(t, s)
	})
}

func TestBackoffIsForgottenAfterAStableRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		apply(t, s, story.unit("a", fake{ReadyIn: time.Hour, EndIn: time.Second, Long: 3}))
		time.Sleep(2*time.Minute + 4*time.Second)
		synctest.Wait()
		story.want(t, "0 a starts", "1 a ends", "1.25 a starts", "2.25 a ends", "2.75 a starts",
			"122.75 a ends", "123 a starts", "124 a ends")
		stop(t, s)
	})
}

func TestDependentsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		apply(t, s, story.unit("etcd", fake{EndIn: 10 * time.Second, End: errors.New("killed")}))
		apply(t, s, s.runners[0].unit, story.unit("apiserver", fake{}, "etcd"))
		time.Sleep(15 * time.Second)
		synctest.Wait()
		story.want(t, "0 etcd starts", "0 etcd ready", "0 apiserver starts", "0 apiserver ready",
			"10 etcd ends", "10.25 etcd starts", "10.25 etcd ready")
		stop(t, s)
	})
}

func TestRestartWaitsForItsDependencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		apply(t, s,
			story.unit("etcd", fake{ReadyIn: 5 * time.Second, EndIn: 10 * time.Second, End: errors.New("killed")}),
			story.unit("apiserver", fake{EndIn: 5 * time.Second, End: errors.New("no etcd")}, "etcd"))
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if got := s.Status()[1]; got.State != Waiting || got.WaitingFor != "etcd" {
			t.Errorf("%+v", got)
		}
		stop(t, s)
	})
}

// TestRestartOfAnother: the unit that a service names starts anew, once, with the
// service's error; the service comes back after it, and others are left alone.
func TestRestartOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		node := story.unit("node", fake{}, "kubelet")
		node.Service = &oneEnd{fake: node.Service.(*fake), end: &RestartError{"kubelet", errors.New("its Node is gone")}}
		apply(t, s, story.unit("kubelet", fake{ReadyIn: time.Second, StopIn: 2 * time.Second}), node, story.unit("proxy", fake{}, "kubelet"))
		time.Sleep(90 * time.Second)
		synctest.Wait()
		got := s.Status()[0]
		if got.State != Stopping {
			t.Errorf("while it stops: %+v", got)
		}
		time.Sleep(time.Minute)
		story.want(t, "0 kubelet starts", "1 kubelet ready", "1 node starts", "1 node ready", "1 proxy starts", "1 proxy ready",
			"89 node stopped", "91 kubelet stopped", "91.25 kubelet starts", "92.25 kubelet ready", "92.25 node starts", "92.25 node ready")
		for _, got := range s.Status()[:2] {
			if got.State != Ready || got.Restarts != 1 || got.LastError != "its Node is gone" {
				t.Errorf("%+v", got)
			}
		}
		stop(t, s)
	})
}

// oneEnd is a fake whose first run ends after 88 s.
type oneEnd struct {
	*fake
	end error
}

func (o *oneEnd) Run(ctx context.Context, ready func()) error {
	end := o.end
	if o.end = nil; end == nil {
		return o.fake.Run(ctx, ready)
	}
	short, cancel := context.WithTimeout(ctx, 88*time.Second)
	defer cancel()
	return errors.Join(o.fake.Run(short, ready), end)
}

// TestRestartOfOneThatDoesNotRun: there is nothing to be done.
func TestRestartOfOneThatDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		node := story.unit("node", fake{EndIn: 2 * time.Second, End: &RestartError{"kubelet", errors.New("its Node is gone")}})
		kubelet := story.unit("kubelet", fake{EndIn: time.Second})
		kubelet.Restart = OnFailure
		apply(t, s, kubelet, node)
		time.Sleep(2100 * time.Millisecond)
		story.want(t, "0 kubelet starts", "0 kubelet ready", "0 node starts", "0 node ready", "1 kubelet ends", "2 node ends")
		if got := s.Status()[0]; got.State != Done {
			t.Errorf("%+v", got)
		}
		stop(t, s)
	})
}

func TestOneShot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		images := story.unit("images", fake{ReadyIn: time.Hour, EndIn: time.Second})
		images.Restart = OnFailure
		apply(t, s, images, story.unit("kubelet", fake{}, "images"))
		time.Sleep(time.Minute)
		story.want(t, "0 images starts", "1 images ends", "1 kubelet starts", "1 kubelet ready")
		if got := s.Status()[0]; got.State != Done || got.Restarts != 0 {
			t.Errorf("%+v", got)
		}
		stop(t, s)
	})
}

func TestEndingWithoutErrorIsRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		apply(t, s, story.unit("a", fake{EndIn: time.Second}))
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if got := s.Status()[0]; got.Restarts != 1 || got.LastError != "ended by itself" {
			t.Errorf("%+v", got)
		}
		stop(t, s)
	})
}

func TestApplyDisturbsOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		etcd, api := story.unit("etcd", fake{}), story.unit("api", fake{}, "etcd")
		proxy := story.unit("proxy", fake{StopIn: time.Second}, "api")
		apply(t, s, etcd, api, proxy)
		story.want(t, "0 etcd starts", "0 etcd ready", "0 api starts", "0 api ready", "0 proxy starts", "0 proxy ready")

		apply(t, s, etcd, api, proxy)
		story.want(t)

		again := story.unit("etcd", fake{})
		apply(t, s, again, api, story.unit("dns", fake{}, "api"))
		story.want(t, "0 etcd stopped", "1 dns ready", "1 dns starts", "1 etcd ready", "1 etcd starts", "1 proxy stopped")
		stop(t, s)
	})
}

func TestApplyCanBeRepeatedAfterItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		slow := story.unit("slow", fake{StopIn: time.Minute})
		apply(t, s, slow)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Apply(ctx, nil)
		if err == nil || err.Error() != "stop slow: context deadline exceeded" {
			t.Errorf("got %v", err)
		}
		apply(t, s, slow)
		story.want(t, "0 slow starts", "0 slow ready", "60 slow stopped", "60 slow starts", "60 slow ready")
		stop(t, s)
	})
}

func TestStopHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		apply(t, s, story.unit("a", fake{}), story.unit("b", fake{StopIn: time.Hour}, "a"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Stop(ctx); err == nil || !strings.Contains(err.Error(), "stop ") || !strings.Contains(err.Error(), "b") {
			t.Errorf("got %v", err)
		}
		if since := time.Since(story.start); since != time.Second {
			t.Errorf("took %s", since)
		}
		stop(t, s)
	})
}

func TestRetireTakesDependentsAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		apply(t, s, story.unit("containerd", fake{}), story.unit("kubelet", fake{StopIn: time.Second}, "containerd"),
			story.unit("node", fake{StopIn: time.Second}, "kubelet"), story.unit("addons", fake{}, "node"))
		story.want(t, "0 containerd starts", "0 containerd ready", "0 kubelet starts", "0 kubelet ready",
			"0 node starts", "0 node ready", "0 addons starts", "0 addons ready")
		if err := s.Retire(t.Context(), "kubelet"); err != nil {
			t.Fatal(err)
		}
		story.want(t, "0 addons stopped", "1 node stopped", "2 kubelet stopped")
		if err := s.Retire(t.Context(), "nothing"); err != nil {
			t.Error(err)
		}
		stop(t, s)
		story.want(t, "2 containerd stopped")
	})
}

func TestPanicIsAnErrorOfTheUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(quiet())
		apply(t, s, Unit{Name: "bad", Service: Func(func(context.Context, func()) error { panic("oh no") })})
		if got := s.Status()[0].LastError; !strings.HasPrefix(got, "panic: oh no\n") {
			t.Errorf("got %q", got)
		}
		stop(t, s)
	})
}

func TestWatchSeesChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		apply(t, s, story.unit("a", fake{ReadyIn: time.Second}))
		var seen []State
		done := errors.New("seen enough")
		err := s.Watch(t.Context(), func(all []Status) error {
			seen = append(seen, all[0].State)
			if all[0].State == Ready {
				return done
			}
			return nil
		})
		if err != done || !slices.Equal(seen, []State{Starting, Ready}) {
			t.Errorf("%v, %v", seen, err)
		}
		stop(t, s)
	})
}

// patient waits for one thing after the other, and is never ready.
type patient struct {
	Service
	since time.Time
}

func (p patient) WaitingFor() string {
	if time.Since(p.since) < time.Minute {
		return "its Node"
	}
	return "a pod subnet"
}

// TestWatchAsksWhoStarts: what a service waits for is news, also without a change of state.
func TestWatchAsksWhoStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story, s := newStory(), New(quiet())
		unit := story.unit("node", fake{ReadyIn: time.Hour})
		unit.Service = patient{unit.Service, story.start}
		apply(t, s, unit)
		var seen []string
		err := s.Watch(t.Context(), func(all []Status) error {
			if what := all[0].WaitingFor; !slices.Contains(seen, what) {
				seen = append(seen, what)
			}
			if len(seen) == 2 {
				return io.EOF
			}
			return nil
		})
		if err != io.EOF || !slices.Equal(seen, []string{"its Node", "a pod subnet"}) || time.Since(story.start) > time.Minute+askAgain {
			t.Errorf("%q, %v, after %s", seen, err, time.Since(story.start))
		}
		stop(t, s)
	})
}

func TestLogTellsStatesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		plain := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}})
		story, s := newStory(), New(slog.New(plain))
		apply(t, s, story.unit("etcd", fake{ReadyIn: time.Second}), story.unit("containerd", fake{ReadyIn: 2 * time.Second}))
		out.Reset()
		etcd, containerd := s.runners[0].unit, s.runners[1].unit
		apply(t, s, etcd, containerd, story.unit("kubelet", fake{EndIn: time.Minute, End: errors.New("no disk")}, "etcd", "containerd"))
		time.Sleep(65 * time.Second)
		synctest.Wait()
		want := `msg=waiting unit=kubelet for="etcd, containerd"
msg=ready unit=etcd
msg=ready unit=containerd
msg=starting unit=kubelet
msg=ready unit=kubelet
msg=backoff unit=kubelet err="no disk"
msg=starting unit=kubelet
msg=ready unit=kubelet
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		stop(t, s)
	})
}
