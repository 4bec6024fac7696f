// Command bench measures Slipway and prints one line per figure, beside its
// budget and, where there is one, a peer's figure measured on a computer of the
// same kind:
//
//	name value unit budget peer peer-value ratio
//
// It exits 1 when a budget is passed. It works on the built program and the
// release image: make bench. Arguments choose among payload, rebuild, serve, boot,
// cluster, installed, etcd, cold and powercut. Times are those of this computer, whole processes,
// and say nothing about real firmware.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"
)

// figure is one thing measured.
type figure struct {
	name   string
	value  float64
	unit   string
	budget *float64 // nil: none
	peer   peer
}

// peer is somebody else's figure for the same thing.
type peer struct {
	name  string
	value float64
}

// upTo is a budget.
func upTo(most float64) *float64 { return &most }

// over tells whether the figure passes its budget.
func (f figure) over() bool { return f.budget != nil && f.value > *f.budget }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, chosen []string) error {
	b := bench{slipway: ".build/bin/slipway", image: ".build/release"}
	var figures []figure
	for _, m := range []struct {
		name string
		take func(context.Context) ([]figure, error)
	}{{"payload", b.payload}, {"rebuild", b.rebuild}, {"serve", b.serve}, {"boot", b.boot}, {"cluster", b.cluster}, {"installed", b.installed}, {"etcd", b.etcd}, {"cold", b.cold}, {"powercut", b.powercut}} {
		if len(chosen) > 0 && !slices.Contains(chosen, m.name) {
			continue
		}
		more, err := m.take(ctx)
		figures = append(figures, more...)
		if err != nil {
			return errors.Join(err, show(figures))
		}
	}
	if err := show(figures); err != nil {
		return err
	}
	return passed(figures)
}

func show(figures []figure) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "name\tvalue\tunit\tbudget\tpeer\tpeer-value\tratio")
	for _, f := range figures {
		budget, name, value, ratio := "-", "-", "-", "-"
		if f.budget != nil {
			budget = fmt.Sprintf("%g", *f.budget)
		}
		if f.peer.name != "" {
			name, value, ratio = f.peer.name, fmt.Sprintf("%g", f.peer.value), fmt.Sprintf("%.2f", f.value/f.peer.value)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%s\t%s\t%s\t%s\t%s\n", f.name, f.value, f.unit, budget, name, value, ratio)
	}
	return w.Flush()
}

// passed names every budget that was.
func passed(figures []figure) error {
	var errs []error
	for _, f := range figures {
		if f.over() {
			errs = append(errs, fmt.Errorf("%s is %.2f %s, over its budget of %g", f.name, f.value, f.unit, *f.budget))
		}
	}
	return errors.Join(errs...)
}
