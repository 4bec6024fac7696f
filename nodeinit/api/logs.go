package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/logring"
)

// Logs streams a unit's lines.
func (s *Server) Logs(ctx context.Context, request *connect.Request[nodev1.LogsRequest], stream *connect.ServerStream[nodev1.LogLine]) error {
	ring, err := s.Rings.Ring(request.Msg.Unit)
	if err != nil {
		return connect.NewError(connect.CodeNotFound, err)
	}
	tail := int(request.Msg.Tail)
	send := func(l logring.Line) error { return stream.Send(message(present(l.Time), l.Text)) }
	if request.Msg.Follow {
		return ended(ring.Follow(ctx, tail, send))
	}
	for _, line := range ring.Tail(tail) {
		if err := send(line); err != nil {
			return err
		}
	}
	return nil
}

// Dmesg streams the kernel's own lines (kernel: ABI/testing/dev-kmsg).
func (s *Server) Dmesg(ctx context.Context, request *connect.Request[nodev1.DmesgRequest], stream *connect.ServerStream[nodev1.LogLine]) error {
	fd, err := unix.Open(s.System.Kmsg, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.System.Kmsg, err)
	}
	defer unix.Close(fd)
	boot := time.Now().Add(-s.System.uptime())
	record := make([]byte, 8<<10) // the kernel's own limit of a record
	for {
		n, err := unix.Read(fd, record)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR): // overwritten before it was read: the next
		case errors.Is(err, unix.EAGAIN) && request.Msg.Follow:
			if err := awaitInput(ctx, fd); err != nil {
				return ended(err)
			}
		case errors.Is(err, unix.EAGAIN), n == 0 && err == nil:
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", s.System.Kmsg, err)
		default:
			if since, text, ok := parseKmsg(string(record[:n])); ok {
				if err := stream.Send(message(boot.Add(since), text)); err != nil {
					return err
				}
			}
		}
	}
}

// awaitInput blocks until fd can be read, and looks after ctx every second:
// poll(2) knows nothing of it.
func awaitInput(ctx context.Context, fd int) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the kernel: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// parseKmsg reads a record: "6,339,5140900,-;text\n KEY=value\n". The third
// number is microseconds since boot. What is not of the form is not ok.
func parseKmsg(record string) (since time.Duration, text string, ok bool) {
	head, body, ok := strings.Cut(record, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return 0, "", false
	}
	micros, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return 0, "", false
	}
	text, _, _ = strings.Cut(body, "\n")
	return time.Duration(micros) * time.Microsecond, text, true
}

func message(at time.Time, text string) *nodev1.LogLine {
	return &nodev1.LogLine{Time: timestamppb.New(at), Text: strings.ToValidUTF8(text, "\uFFFD")}
}
