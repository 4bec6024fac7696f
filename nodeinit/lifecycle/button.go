package lifecycle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// PowerButton is a service that calls Pressed when somebody presses the
// machine's power button, or a management controller or hypervisor does so for
// them. The button is one of the kernel's input devices (kernel: input/input);
// which one does not matter, so it listens to all.
type PowerButton struct {
	Dir     string // /dev/input
	Pressed func()
}

// lookAgain is how often it looks for devices that appeared.
const lookAgain = 2 * time.Second

// Run listens until ctx is done.
func (b PowerButton) Run(ctx context.Context, ready func()) error {
	open := make(map[string]int) // path to file descriptor
	cancelled, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make an event: %w", err)
	}
	open[""] = cancelled
	defer context.AfterFunc(ctx, func() { unix.Write(cancelled, binary.NativeEndian.AppendUint64(nil, 1)) })()
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	ready()
	for ctx.Err() == nil {
		if err := b.openNew(open); err != nil {
			return err
		}
		pressed, err := awaitPress(open)
		if err != nil {
			return err
		}
		if pressed {
			b.Pressed()
		}
	}
	return nil
}

func (b PowerButton) openNew(open map[string]int) error {
	paths, err := filepath.Glob(filepath.Join(b.Dir, "event*"))
	if err != nil {
		return fmt.Errorf("find input devices: %w", err)
	}
	for _, path := range paths {
		if _, known := open[path]; known {
			continue
		}
		if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil { // else it went away
			open[path] = fd
		}
	}
	return nil
}

// awaitPress waits for input, a while, and reports whether the power key went
// down. A device that is gone is closed.
func awaitPress(open map[string]int) (bool, error) {
	var fds []unix.PollFd
	var paths []string
	for path, fd := range open {
		fds, paths = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}), append(paths, path)
	}
	_, err := unix.Poll(fds, int(lookAgain.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("wait for input: %w", err)
	}
	pressed := false
	events := make([]byte, 64*eventSize)
	for i, f := range fds {
		if f.Revents == 0 {
			continue
		}
		n, err := unix.Read(int(f.Fd), events)
		if err != nil && !errors.Is(err, unix.EAGAIN) || n == 0 {
			unix.Close(int(f.Fd))
			delete(open, paths[i])
			continue
		}
		pressed = pressed || hasPress(events[:max(n, 0)])
	}
	return pressed, nil
}

// eventSize is the size of struct input_event on 64-bit machines: a time of 16
// bytes, then type, code and value.
const eventSize = 24

// hasPress looks for KEY_POWER going down (linux/input-event-codes.h).
func hasPress(events []byte) bool {
	const typeKey, keyPower, down = 1, 116, 1
	for ; len(events) >= eventSize; events = events[eventSize:] {
		e := events[16:eventSize]
		if binary.NativeEndian.Uint16(e) == typeKey && binary.NativeEndian.Uint16(e[2:]) == keyPower &&
			binary.NativeEndian.Uint32(e[4:]) == down {
			return true
		}
	}
	return false
}
