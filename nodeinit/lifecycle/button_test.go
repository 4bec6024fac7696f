package lifecycle

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func event(kind, code uint16, value uint32) []byte {
	e := make([]byte, 16, eventSize)
	e = binary.NativeEndian.AppendUint16(e, kind)
	e = binary.NativeEndian.AppendUint16(e, code)
	return binary.NativeEndian.AppendUint32(e, value)
}

// TestPowerButton presses keys on an input device that is a pipe.
func TestPowerButton(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "event3")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pressed := 0
	button := PowerButton{Dir: dir, Pressed: func() { pressed++; cancel() }}
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	const key, enter, power = 1, 28, 116
	for _, e := range [][]byte{event(key, enter, 1), event(key, power, 0), event(4, power, 1), event(key, power, 1)} {
		device.Write(e)
	}
	if err := button.Run(ctx, func() {}); err != nil {
		t.Fatal(err)
	}
	if pressed != 1 {
		t.Errorf("pressed %d times", pressed)
	}
	for _, e := range [][]byte{event(key, enter, 1), event(key, power, 0), event(4, power, 1), nil, make([]byte, 10)} {
		if hasPress(e) {
			t.Errorf("% x is not a press", e)
		}
	}
}
