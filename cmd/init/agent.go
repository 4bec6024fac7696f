package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"slipway/nodeinit/agent"
)

// runAgent is the node agent. It returns when PID 1 stops it.
func runAgent() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return agent.Main(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}
