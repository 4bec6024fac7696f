// Hangs is an init that arms the machine's watchdog as the real one does, comes
// as far as the root image, and then feeds the watchdog no more: for a story of
// an image that is no good. Only the watchdog can end it.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"slipway/nodeinit/early"
	"slipway/nodeinit/lifecycle"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	if err := early.Console(log); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	watchdog := &lifecycle.Watchdog{Open: lifecycle.OpenWatchdogToPass, Log: log}
	fed := make(chan error, 1)
	go func() { fed <- watchdog.Run(ctx, func() {}) }()
	panic(early.EnterRoot(log, func() {
		for !lifecycle.WatchdogPassed() {
			time.Sleep(100 * time.Millisecond) // its driver is being loaded
		}
		cancel()
		fmt.Println("this init hangs", <-fed)
		for {
			time.Sleep(time.Hour)
		}
	}))
}
