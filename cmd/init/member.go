package main

import (
	"context"
	"log/slog"
	"os"

	"slipway/controlplane/etcd/member"
)

// runMember is the unit etcd-member. It returns when PID 1 stops it.
func runMember() error {
	return member.Main(context.Background(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
}
