package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// runUnit is a unit of PID 1 that is this program. It returns when PID 1 stops it.
func runUnit(run func(context.Context, *slog.Logger) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return run(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}
