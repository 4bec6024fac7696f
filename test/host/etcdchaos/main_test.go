// Package etcdchaos runs members of etcd as a control-plane machine runs them,
// each in a network namespace of its own, and breaks them while clients write:
// members are killed, paused, cut off, started with other clocks, removed and
// joined again. After each round everything heals, and then every acknowledged
// write must be there, the history of each key must be linearizable, and the
// members must hold the same.
//
// What is broken, and in which order, follows from -seed; how the processes'
// steps interleave with it does not. The clocks that jump are the monotonic one
// and the one since boot, in a time namespace that a member is started in: Linux
// gives nobody a wall clock of his own, so that one stays the computer's.
//
//	go test ./test/host/etcdchaos -v -args -seed 7 -rounds 50 -within 0
package etcdchaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"slipway/test/netns"
)

var (
	seed      = flag.Uint64("seed", 1, "what is broken, and in which order")
	rounds    = flag.Int("rounds", len(faults), "how many rounds are played")
	within    = flag.Duration("within", 40*time.Second, "no round begins later, so that a busy computer's tests end too; 0: each does")
	failovers = flag.Int("failovers", 0, "how often the leader is killed to measure how long writes wait")
	peer      = flag.String("peer", "", "another etcd program, measured with its default settings instead of ours")
	figures   = flag.String("figures", "", "the `file` that figures are added to, one in a line: name value unit")
)

// patience is how long anything may take before the test fails. A computer
// that builds something else at the same time needs far less.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(netns.Main(m))
}

func TestRounds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	c := newCluster(t, ours(t))
	c.grow(3)
	h := newHistory()
	rng := rand.New(rand.NewPCG(*seed, 0))
	began, played, injected := time.Now(), 0, 0
	for n, f := range deal(rng, *rounds) {
		if *within > 0 && time.Since(began) > *within {
			t.Logf("this computer is busy: %d rounds are left out", *rounds-played)
			break
		}
		r := &round{t: t, number: n, fault: f, rng: rng, c: c, h: h}
		r.play()
		injected += r.injected
		played++
	}
	t.Logf("seed %d: %d rounds, %d faults, %d writes acknowledged, none lost", *seed, played, injected, h.acknowledged(0))
	report(t, "rounds", float64(played), "count")
	report(t, "faults", float64(injected), "count")
	report(t, "lost-writes", 0, "count") // else the test has failed
}

// TestFailover measures how long writes wait when the leader is killed.
func TestFailover(t *testing.T) {
	if *failovers == 0 {
		t.Skip("a measurement, not a test: -failovers says how often the leader is killed")
	}
	b := ours
	if *peer != "" {
		b = theirs
	}
	c := newCluster(t, b(t))
	c.grow(3)
	var took []time.Duration
	for range *failovers {
		leader := c.leader()
		took = append(took, c.failover(leader))
		c.start(leader)
		c.settle()
	}
	slices.Sort(took)
	t.Log(took)
	report(t, "failover.p50", milliseconds(quantile(took, 50)), "ms")
	report(t, "failover.p99", milliseconds(quantile(took, 99)), "ms")
}

// quantile is the smallest of the sorted values that percent of them do not pass.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)*percent+99)/100-1]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func report(t *testing.T, name string, value float64, unit string) {
	t.Helper()
	if *figures == "" {
		return
	}
	f, err := os.OpenFile(*figures, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(t, err)
	_, err = fmt.Fprintf(f, "%s %g %s\n", name, value, unit)
	must(t, err)
	must(t, f.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
