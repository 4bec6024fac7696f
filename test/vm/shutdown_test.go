package vm

import (
	_ "embed"
	"regexp"
	"strconv"
	"testing"
	"time"

	"slipway/nodeinit/lifecycle"
)

// stubborn.yaml has a pod that does not end when it is asked to.
//
//go:embed testdata/stubborn.yaml
var stubborn string

// reboots: what the machine holds is there after a restart, which a pod that does not end
// holds up no longer than it may.
func reboots(flags ...string) func(*testing.T, *diskLab) {
	return func(t *testing.T, d *diskLab) {
		d.Apply(t, stubborn)
		awaitPods(t, d.Lab, "default", 1, podPatience)
		before, said := d.bootID(t), len(d.Console(t, d.machine))
		d.CLI(t, append([]string{"node", "reboot", d.id(t), "--yes"}, flags...)...)
		d.awaitRestart(t, before)
		endedInTime(t, d.Console(t, d.machine)[said:])
		d.Kubectl(t, "get", "configmap", "kept")
		d.awaitSlot(t, "a", "")
		d.Kubectl(t, "delete", "pod", "stubborn")
	}
}

// The first and the last line of a shutdown, with the seconds since the machine's start, and
// that of its pods: they have 15 seconds, and need one or two.
var (
	shutdownBegins = regexp.MustCompile(`\[ *(\d+\.\d+)\] init: shutting down`)
	shutdownEnds   = regexp.MustCompile(`\[ *(\d+\.\d+)\] init: the end`)
	waitedForPods  = regexp.MustCompile(`init: stop pods took=1\d[.s]`)
)

// endedInTime: a machine that had the stubborn pod killed it, and came to the end of its shutdown
// within what a shutdown may take, by its own clock.
func endedInTime(t *testing.T, console string) {
	t.Helper()
	begun, ended := shutdownBegins.FindStringSubmatch(console), shutdownEnds.FindStringSubmatch(console)
	if begun == nil || ended == nil {
		t.Fatalf("the console does not tell a shutdown from its begin to its end: %q, %q", begun, ended)
	}
	from, errFrom := strconv.ParseFloat(begun[1], 64)
	to, errTo := strconv.ParseFloat(ended[1], 64)
	took := time.Duration((to - from) * float64(time.Second))
	if t.Logf("the shutdown took %s", took); errFrom != nil || errTo != nil || took <= 0 || took > lifecycle.Deadline {
		t.Errorf("it may take %s", lifecycle.Deadline)
	}
	if !waitedForPods.MatchString(console) {
		t.Error("the stubborn pod ended by itself")
	}
}
