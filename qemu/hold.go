package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Descriptors the holder inherits.
const (
	leashFD = 3
	lockFD  = 4
)

// errLeashCut ends a holder whose owner is gone.
var errLeashCut = errors.New("whoever started the lab has gone without releasing it")

// Hold is the body of the process that Start makes; nothing else may call it. It builds the
// lab described in its working directory and keeps it until it is told to end, its leash is
// cut, or starting fails. When it returns, its process must end: that ends the lab.
func Hold(ctx context.Context, log *slog.Logger) error {
	if os.Getpid() != 1 {
		return errors.New("hold a lab: only `slipway lab up` may start this")
	}
	syscall.CloseOnExec(lockFD) // stays open, and locked, until this process ends
	leash := os.NewFile(leashFD, "leash")
	conn, err := net.FileConn(leash)
	if err = errors.Join(err, leash.Close()); err != nil {
		return fmt.Errorf("hold a lab: take the leash: %w", err)
	}
	var p plan
	if err := readJSON(planFile, &p); err != nil {
		return fmt.Errorf("hold a lab: %w", err)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	r := newRack(p, log)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { r.procs.reapLoop(ctx); return nil })
	group.Go(func() error { return watchLeash(ctx, conn) })
	group.Go(func() error { return serveControl(ctx, r) })
	group.Go(func() error {
		return report(conn, r.start(ctx, func(doing string) { say(conn, progress{Doing: doing}) }))
	})
	return group.Wait()
}

// progress is one line from the holder to whoever holds the leash.
type progress struct {
	Doing string `json:"doing,omitempty"`
	Ready bool   `json:"ready,omitempty"`
	Error string `json:"error,omitempty"`
}

// say sends one line. That nobody listens any more is watchLeash's business.
func say(leash net.Conn, p progress) { _ = json.NewEncoder(leash).Encode(p) }

func report(leash net.Conn, err error) error {
	if err != nil {
		say(leash, progress{Error: err.Error()})
		return err
	}
	say(leash, progress{Ready: true})
	return nil
}

// watchLeash returns nil when the lab is released, and errLeashCut when the other end closes.
func watchLeash(ctx context.Context, leash net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = leash.Close() })
	defer stop()
	if _, err := bufio.NewReader(leash).ReadByte(); err == nil {
		return nil
	} else if ctx.Err() == nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("watch the leash: %w", err)
	}
	return errLeashCut
}
