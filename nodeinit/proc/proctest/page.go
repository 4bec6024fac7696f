// Package proctest prints units and files for golden tests: one page that says
// what runs on a node, with which flags. Only tests import it.
package proctest

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Page prints the units with what is to be known of their processes, then the
// paths of the files.
func Page(units []supervise.Unit, files []proc.File) string {
	var b strings.Builder
	for _, u := range units {
		fmt.Fprintf(&b, "unit %s", u.Name)
		if len(u.After) > 0 {
			fmt.Fprintf(&b, " after %s", strings.Join(u.After, ", "))
		}
		if u.Restart == supervise.OnFailure {
			b.WriteString(" once")
		}
		b.WriteString("\n")
		printService(&b, u.Service)
	}
	b.WriteString("files\n")
	lines := make([]string, len(files))
	for i, f := range files {
		lines[i] = fmt.Sprintf("  %s %s\n", f.Path, f.Mode)
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, ""))
	return b.String()
}

func printService(b *strings.Builder, service supervise.Service) {
	if g, ok := service.(*proc.Gate); ok {
		fmt.Fprintf(b, "  gate: %s, for %s at most\n", g.Probe, g.Patience)
		return
	}
	p, ok := service.(*proc.Process)
	if !ok {
		b.WriteString("  in init\n")
		return
	}
	for _, env := range p.Env {
		fmt.Fprintf(b, "  %s\n", env)
	}
	fmt.Fprintf(b, "  %s\n", p.Path)
	for _, arg := range p.Args {
		fmt.Fprintf(b, "    %s\n", arg)
	}
	if p.Ready != nil {
		fmt.Fprintf(b, "  ready: %s\n", p.Ready)
	}
	for _, path := range p.Reads {
		fmt.Fprintf(b, "  reads once: %s\n", path)
	}
	if p.LeaveChildren {
		b.WriteString("  leaves children\n")
	}
	if p.CPUWeight != 0 {
		fmt.Fprintf(b, "  cpu weight: %d\n", p.CPUWeight)
	}
	if p.OOMScoreAdj != 0 {
		fmt.Fprintf(b, "  oom: %d\n", p.OOMScoreAdj)
	}
}

// Golden compares got with a golden file, or writes it with -update.
func Golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got), go test -update rewrites it:\n%s", path, diff)
	}
}

// Contents prints the files as text, each under its path.
func Contents(files []proc.File) string {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "-- %s --\n%s", f.Path, f.Data)
	}
	return b.String()
}
