// Package vip lets three control planes, each in a namespace of its own on one
// bridge, hold a virtual IP by the node's own code, and looks at them with
// programs that we did not write.
package vip

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"slipway/nodeinit/vip"
	"slipway/test/netns"
)

// routing is set in a process that is a control plane; its value is a role.
const routing = "SLIPWAY_TEST_VIP"

// role is what a control plane is told: its file, and where its priority is.
type role struct {
	File   vip.File
	Health string
}

func TestMain(m *testing.M) {
	text := os.Getenv(routing)
	if text == "" {
		os.Exit(netns.Main(m))
	}
	if err := route(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// route runs the node's code until SIGTERM, with an API server that is as well
// as the health file says.
func route(text string) error {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	look := func(context.Context) uint8 {
		data, _ := os.ReadFile(r.Health)
		priority, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		return uint8(priority)
	}
	return vip.Router{File: r.File, Look: look, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}.Run(ctx)
}
