package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"
)

// bootService is the lab's service as the holder runs it.
type bootService struct {
	process
	spec Service
}

// do performs PowerOn, PowerOff or PowerCycle on the service, and waits until it is ready.
func (s *bootService) do(ctx context.Context, action Action) error {
	var err error
	switch action {
	case PowerOn:
		err = s.on(ctx)
	case PowerOff:
		err = s.kill()
	case PowerCycle:
		err = errors.Join(s.kill(), s.on(ctx))
	default:
		err = fmt.Errorf("unknown action %q: want on, off or cycle", action)
	}
	if err != nil {
		return fmt.Errorf("boot service: %w", err)
	}
	return nil
}

func (s *bootService) on(ctx context.Context) error {
	if s.running() {
		return nil
	}
	cmd := exec.Command(s.spec.Command[0], s.spec.Command[1:]...)
	cmd.Env = append(os.Environ(), s.spec.Env...)
	if err := s.process.start(cmd, serviceLog); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if s.spec.Ready == "" {
		return nil
	}
	return s.awaitReady(ctx)
}

// awaitReady waits until the service accepts connections, ends, or is out of time.
func (s *bootService) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.spec.Within)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.spec.Ready)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-again.C:
		case <-s.done():
			return fmt.Errorf("ended (%s) before it accepted connections on %s; it says:\n%s",
				s.status().LastEnd, s.spec.Ready, tail(serviceLog, 4000))
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, at most %v: %w; it says:\n%s", s.spec.Ready, s.spec.Within, err, tail(serviceLog, 4000))
		}
	}
}
